"""`weber train`, `weber demo`: runs."""

from __future__ import annotations

import shlex
from pathlib import Path

from weber.commands.terminal import build_watcher, read_settings, say
from weber.errors import ConfigError


def train(config: Path, /, *overrides: str, resume: bool = False) -> None:
    """Train an adapter, or the model itself.

    Parameters
    ----------
    config
        A TOML file of settings.
    overrides
        `section.key=value`, for example `optim.lr=2e-4` or `data.0.repeats=10`.
    resume
        Go on from the latest checkpoint in output.folder.
    """
    settings = read_settings(config, overrides)
    if resume and (config.parent / "metrics.jsonl").is_file() and not settings.output.folder.exists():
        raise ConfigError(
            "The run folder was moved: its settings name another place.",
            got=f"output.folder = {settings.output.folder}, which does not exist",
            fix=f"add output.folder={shlex.quote(str(config.parent))}",
        )
    from weber.training import assemble

    finished = assemble.train(settings, resume=resume, watcher=build_watcher())
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
