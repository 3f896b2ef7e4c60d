"""What verbs share: what they say, and how they show that they are at work."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

from cyclopts import Parameter

from weber.imports import begin_work

if TYPE_CHECKING:
    from weber.config.run import RunConfig
    from weber.track.progress import Watcher

Texts = Annotated[list[str], Parameter(negative="")]
"""A flag that may be given several times."""


def say(text: str) -> None:
    """Write a result to standard output."""
    print(text)


def read_settings(config: Path, overrides: Sequence[str] = ()) -> RunConfig:
    """The settings of a run. Called before anything heavy is imported, so that a mistake in them is told at once."""
    from weber.config.load import load_config

    return load_config(config, overrides)


def build_watcher() -> Watcher:
    """Progress on standard error. Called when all that a verb needs is imported, and its work begins."""
    from rich.console import Console

    from weber.track.progress import Watcher

    begin_work()
    return Watcher(Console(stderr=True))
