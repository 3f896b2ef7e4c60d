"""weber fine-tunes image models. From Python: build a config, look at its plan, train, sample."""

from __future__ import annotations

import logging
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING

from weber.errors import WeberError
from weber.version import VERSION as __version__

if TYPE_CHECKING:
    from PIL.Image import Image

    from weber.config.load import load_config
    from weber.config.run import RunConfig
    from weber.planning.plan import Plan

# diffusers imports bitsandbytes and torchao where they are installed, which then note that kernels are missing that nothing here uses.
for _name in ("bitsandbytes.backends.cpu.ops", "torchao", "torch.utils._pytree", "diffusers.quantizers.torchao.torchao_quantizer"):
    logging.getLogger(_name).setLevel(logging.ERROR)

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


def train(config: RunConfig, *, resume: bool | int | str | Path = False) -> Path:
    """Train to the end; returns the finished adapter file, or the folder of the model. Progress goes to standard error.

    `resume`: go on from the latest good checkpoint; or a step, or the folder of a checkpoint, to go on from that.
    """
    import sys

    from weber.track.progress import Watcher, build_console
    from weber.training import assemble

    return assemble.train(config, resume=resume, watcher=Watcher(build_console(sys.stderr)))


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
