"""`weber train`, `weber demo`: runs."""

from __future__ import annotations

import re
import shlex
from pathlib import Path
from typing import Annotated

from cyclopts import Parameter

from weber.commands.terminal import build_watcher, read_run, say
from weber.errors import ConfigError

_OVERRIDE = re.compile(r"[A-Za-z_]\w*(\.\w+)+=")
_RESUME = "--resume"


def place_resume(arguments: list[str]) -> list[str]:
    """The same words, with a `--resume` that names no checkpoint at the end: what stands behind it is a setting or a file of settings."""
    for number, word in enumerate(arguments):
        following = arguments[number + 1] if number + 1 < len(arguments) else "-"
        if word == _RESUME and (following.startswith("-") or following.endswith(".toml") or _OVERRIDE.match(following)):
            return [*arguments[:number], *arguments[number + 1 :], word]
    return arguments


def train(config: Path, /, *overrides: str, resume: Annotated[str | bool, Parameter(negative="", metavar="[STEP|FOLDER]")] = False) -> None:
    """Train an adapter, or the model itself.

    Parameters
    ----------
    config
        A TOML file of settings, or a file of another trainer (see `weber import`).
    overrides
        `section.key=value`, for example `optim.lr=2e-4` or `data.0.repeats=10`.
    resume
        Go on from the latest good checkpoint in output.folder; with a step or a checkpoint's folder behind it, from that one.
    """
    settings, imported = read_run(config, overrides)
    if resume is True and (config.parent / "metrics.jsonl").is_file() and not settings.output.folder.exists():
        raise ConfigError(
            "The run folder was moved: its settings name another place.",
            got=f"output.folder = {settings.output.folder}, which does not exist",
            fix=f"add output.folder={shlex.quote(str(config.parent))}",
        )
    from weber.training import assemble

    finished = assemble.train(settings, resume=resume, watcher=build_watcher(), imported=imported)
    say(f"The result is {finished}")


def demo(out: Path = Path("runs")) -> None:
    """Teach the small model that comes with weber a style, on the CPU: the same prompts before, during and after.

    Parameters
    ----------
    out
        Folder under which the run folder is made.
    """
    from weber.training.demo import run_demo

    sheet = run_demo(out, build_watcher())
    say(f"Before, during and after: {sheet}")
