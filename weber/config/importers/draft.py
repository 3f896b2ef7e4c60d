"""A run that is being made from the keys of another trainer."""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping
from pathlib import Path
from types import NoneType, UnionType
from typing import Any, Union, get_args, get_origin

from pydantic import TypeAdapter, ValidationError

from weber.config.importers.outcome import Given, Outcome, OutcomeKind
from weber.config.importers.values import UNSET, read_bool, read_float, read_int
from weber.config.load import place_value
from weber.config.settings import Setting, find_setting
from weber.config.toml import write_value


class Keys:
    """Keys of one table, as a file has them, with what the other trainer takes for those that are left out.

    `defaults` are used where a key is not given or empty; `set_number`: the set of pictures that they are of.
    """

    def __init__(self, given: Iterable[Given], *, defaults: Mapping[str, Any] | None = None, set_number: int | None = None) -> None:
        self.given: dict[str, Given] = {one.name: one for one in given}  # the last of several counts, as everywhere
        self.defaults, self.set_number = dict(defaults or {}), set_number

    def __getitem__(self, name: str) -> Any:
        """The value of a key: of the file, else the other trainer's default, else None."""
        found = self.given.get(name)
        return self.defaults.get(name) if found is None or is_unset(found.value) else found.value

    def __contains__(self, name: object) -> bool:
        """Whether the file says something there."""
        return name in self.given and not is_unset(self.given[str(name)].value)

    def find(self, name: str) -> Given:
        """The key as it was given, or as the default that it is."""
        found = self.given.get(name)
        if found is not None and not is_unset(found.value):
            return found
        return Given(name, self.defaults.get(name), name, "", is_default=True)

    def read_bool(self, name: str) -> bool:
        """Yes or no; a key that is nowhere is no."""
        return self[name] is not None and read_bool(self[name], name=self.find(name).spelled)

    def read_float(self, name: str) -> float | None:
        """A number; None for a key that is nowhere."""
        return None if self[name] is None else read_float(self[name], name=self.find(name).spelled)

    def read_int(self, name: str) -> int | None:
        """A whole number; None for a key that is nowhere."""
        return None if self[name] is None else read_int(self[name], name=self.find(name).spelled)

    def read_text(self, name: str) -> str | None:
        """Text without blanks around it; None for a key that is nowhere."""
        return None if self[name] is None else str(self[name]).strip()


class Draft:
    """Settings that were made so far (`tree`), where each came from (`origins`), and what became of each key (`outcomes`)."""

    def __init__(self, *, weber_defaults: bool = False) -> None:
        self.tree: dict[str, Any] = {}
        self.origins: dict[str, str] = {}
        self.outcomes: list[Outcome] = []
        self.faults: list[str] = []
        self.files: list[str] = []
        self.weber_defaults = weber_defaults

    def set(self, key: str, value: object, *, origin: Given | str) -> str:
        """Put a value at its place, in the type that its setting has. Returns the line of TOML. ConfigError: it cannot be that."""
        spelled = origin.spelled if isinstance(origin, Given) else origin
        setting = find_setting(key)
        converted = value if setting is None else convert(setting, value, name=spelled)
        place_value(self.tree, key, value=converted)
        self.origins[key] = _describe_origin(origin)
        return f"{key} = {write_value(converted)}"

    def get(self, key: str) -> Any:
        """What was put there so far; None where nothing was."""
        place: Any = self.tree
        for part in key.split("."):
            if isinstance(place, list):
                place = place[int(part)] if part.isdecimal() and int(part) < len(place) else None
            else:
                place = place.get(part) if isinstance(place, dict) else None
        return place

    def remove(self, key: str) -> None:
        """Take a value out again, where there is one."""
        *above, last = key.split(".")
        place: Any = self.tree
        for part in above:
            place = place[int(part)] if isinstance(place, list) else place.get(part, {})
        place.pop(last, None)
        self.origins.pop(key, None)

    def note(self, given: Given, kind: OutcomeKind, *, line: str, is_example: bool = False) -> None:
        """Say what became of a key."""
        self.outcomes.append(Outcome(given, kind, line, is_example))


NO_EFFECT = "no effect: "
"""What the line of a translation begins with where the key had no effect with the others that are given."""
REFUSED = "refused: "
"""The same where this value cannot be had."""


def is_unset(value: object) -> bool:
    """Whether files hold that where nothing was chosen."""
    return any(value is one or value == one for one in UNSET) and not isinstance(value, bool)


def convert(setting: Setting, value: object, *, name: str) -> Any:
    """A value in the type of a setting: numbers and yes and no may be texts. Raises ConfigError for what it cannot be."""
    kinds = _list_types(setting.field.annotation)
    if isinstance(value, str) and Path in kinds:
        return str(Path(value))  # a text still, because the run looks for variables of a shell in it
    if isinstance(value, str) and str in kinds and not (kinds & {int, float} and _is_number(value)):
        return value
    if bool in kinds and not isinstance(value, bool):
        return read_bool(value, name=name)
    if int in kinds and float not in kinds and isinstance(value, str | float):
        return read_int(value, name=name) if _is_number(value) or str not in kinds else value
    if float in kinds and isinstance(value, str | int) and not isinstance(value, bool):
        return read_float(value, name=name) if _is_number(value) or kinds == {float} else value
    try:
        annotation: Any = setting.field.annotation
        return TypeAdapter[Any](annotation).validate_python(value, strict=False) if isinstance(value, str) else value
    except ValidationError:
        return value  # the run's own check says what is wrong with it


def _list_types(annotation: Any) -> set[Any]:
    if get_origin(annotation) in (Union, UnionType):
        return {kind for one in get_args(annotation) for kind in _list_types(one)} - {NoneType}
    if hasattr(annotation, "__metadata__"):
        return _list_types(get_args(annotation)[0])
    if get_args(annotation) and all(isinstance(one, str) for one in get_args(annotation)):
        return {str}
    return {annotation}


def _is_number(value: object) -> bool:
    return re.fullmatch(r"[-+]?(\d[\d_]*\.?\d*|\.\d+)(e[-+]?\d+)?", str(value).strip(), re.IGNORECASE) is not None


def _describe_origin(origin: Given | str) -> str:
    if isinstance(origin, str):
        return origin
    return f"{origin.text}, the default there" if origin.is_default else f"{origin.text} ({origin.where})" if origin.where else origin.text
