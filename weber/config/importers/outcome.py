"""What became of each key of another trainer's file."""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, Literal

from weber.config.run import RunConfig
from weber.config.section import HIDDEN

OutcomeKind = Literal["refused", "translated", "no effect", "used"]

LEFT_OUT = "left out"


@dataclass(frozen=True)
class Given:
    """A key as a file has it. `name`: as the tables have it; `spelled`: as it stands in the file; `where`: the file, and the line where
    there are lines. `is_default`: it is in no file, and this is what the other trainer takes then. `is_secret`: its value is in no
    report."""

    name: str
    value: Any
    spelled: str
    where: str
    is_default: bool = False
    is_secret: bool = False

    @property
    def text(self) -> str:
        """Key and value for a person."""
        if self.value and (self.is_secret or _SECRET.search(self.name)):
            return f"{self.spelled} = {HIDDEN}"
        value = self.value if isinstance(self.value, str) else write_plain(self.value)
        shown = value if len(value) <= MOST_SHOWN else value[: MOST_SHOWN - 3] + "..."
        return f"{self.spelled} = {shown}".replace("\n", " ").rstrip()


MOST_SHOWN = 100
_SECRET = re.compile(r"(?:hub|hf|huggingface)_token$|api_key$")
"""Keys of whatever trainer that hold what is secret."""


def write_plain(value: object) -> str:
    """A value as most formats write it."""
    match value:
        case None:
            return "null"
        case bool():
            return str(value).lower()
        case list() | tuple():
            return f"[{', '.join(write_plain(one) for one in value)}]"
        case Mapping():
            return "{" + ", ".join(f"{key}: {write_plain(one)}" for key, one in value.items()) + "}"
        case _:
            return str(value)


@dataclass(frozen=True)
class Outcome:
    """What became of a key. `line`: what it is here, or why it is not. `is_example`: its value is that of the trainer's own example."""

    given: Given
    kind: OutcomeKind
    line: str
    is_example: bool = False


@dataclass(frozen=True)
class Imported:
    """A run of another trainer as one of weber. `tree`: the settings that it makes, `origins`: where each came from, `faults`: what the
    other trainer really did with such settings, `files`: what was read."""

    tool: str
    title: str
    config: RunConfig
    tree: Mapping[str, Any]
    origins: Mapping[str, str]
    outcomes: Sequence[Outcome]
    faults: Sequence[str] = ()
    files: Sequence[str] = field(default=())
