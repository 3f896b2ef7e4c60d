"""weber fine-tunes image models. From Python: build a config, look at its plan, train, sample."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING

from weber.errors import WeberError
from weber.imports import quiet_libraries
from weber.version import VERSION as __version__

if TYPE_CHECKING:
    from PIL.Image import Image

    from weber.config.load import load_config
    from weber.config.run import RunConfig
    from weber.planning.plan import Plan

quiet_libraries()

__all__ = ["RunConfig", "WeberError", "__version__", "load_config", "plan", "sample", "train"]


def __getattr__(name: str) -> object:
    """The settings are read when they are first asked for, so that `weber --help` need not."""
    if name not in ("RunConfig", "load_config"):
        raise AttributeError(f"module 'weber' has no attribute {name!r}")
    from weber.config import load, run

    return load.load_config if name == "load_config" else run.RunConfig


def plan(config: RunConfig) -> Plan:
    """Check a config against its model, data and machine, without reading weights. `weber.planning.report` puts it in words."""
    from weber.planning.plan import build_plan

    return build_plan(config)


def train(config: RunConfig, *, resume: bool = False) -> Path:
    """Train to the end; returns the finished adapter file, or the folder of the model. Progress goes to standard error."""
    from rich.console import Console

    from weber.track.progress import Watcher
    from weber.training import assemble

    return assemble.train(config, resume=resume, watcher=Watcher(Console(stderr=True)))


def sample(
    run: str | Path,
    prompts: str | Sequence[str],
    *,
    strength: float = 1.0,
    seed: int | None = None,
    steps: int | None = None,
    guidance: float | None = None,
    size: tuple[int, int] | None = None,
) -> list[Image]:
    """Paint one picture per prompt with what a run folder has trained. `size` is (width, height) in pixels."""
    from rich.console import Console

    from weber.track.progress import Watcher
    from weber.training.paint import Wish
    from weber.training.paint import sample as paint

    width, height = size or (None, None)
    prompts = [prompts] if isinstance(prompts, str) else prompts
    wish = Wish(prompts, strength=strength, seed=seed, steps=steps, guidance=guidance, width=width, height=height)
    return paint(Path(run), wish, watcher=Watcher(Console(stderr=True)))
