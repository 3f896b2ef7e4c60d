"""What verbs share: what they say, and how they show that they are at work."""

from __future__ import annotations

import sys
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

from cyclopts import Parameter

from weber.imports import begin_work

if TYPE_CHECKING:
    from weber.config.importers.outcome import Imported
    from weber.config.run import RunConfig
    from weber.track.progress import Watcher

Texts = Annotated[list[str], Parameter(negative="")]
"""A flag that may be given several times."""


def say(text: str) -> None:
    """Write a result to standard output."""
    print(text)


def end(code: int) -> None:
    """Leave with an exit code that tells a script what was found."""
    raise SystemExit(code)


def check_plot(plot: Path | None) -> None:
    """Refuse a file that a picture cannot be written to."""
    from weber.errors import ConfigError

    if plot is not None and (plot.is_dir() or plot.suffix.lower() != ".png"):
        raise ConfigError("The picture is a PNG file.", got=f"--plot {plot}", expected="a file name", fix="write --plot levels.png")


def read_settings(config: Path, overrides: Sequence[str] = ()) -> RunConfig:
    """The settings of a run. Called before anything heavy is imported, so that a mistake in them is told at once."""
    return read_run(config, overrides)[0]


def read_run(config: Path, overrides: Sequence[str] = ()) -> tuple[RunConfig, Imported | None]:
    """The settings of a run, of whatever trainer; with what became of them, if they were not weber's own."""
    from weber.config.load import is_own, load_config

    if is_own(config):
        return load_config(config, overrides), None
    from weber.config.importers.load import load_any

    return load_any(config, overrides)


def read_memory(overrides: Sequence[str]) -> dict[str, object]:
    """Settings of [memory], for a verb that takes no others. Raises ConfigError."""
    from weber.config.load import write_overrides
    from weber.errors import ConfigError

    tree: dict[str, object] = {}
    write_overrides(tree, overrides)
    memory = tree.pop("memory", {})
    if tree or not isinstance(memory, dict):
        raise ConfigError(
            "Only settings of [memory] can be changed here.",
            got=", ".join(overrides),
            expected="memory.key=value, such as memory.quantize=nf4",
            fix="remove the others; what is painted and how is said by --prompt, --steps, --guidance and the like (--help lists them)",
        )
    return memory


def build_watcher() -> Watcher:
    """Progress on standard error. Called when all that a verb needs is imported, and its work begins."""
    from weber.track.progress import Watcher, build_console

    begin_work()
    return Watcher(build_console(sys.stderr))
