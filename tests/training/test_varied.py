"""A run whose pictures are mirrored, in other colors, at two sizes and in sets with shares and times of their own goes on bit for bit."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from safetensors.torch import load_file
from torch import equal

from tests.runs import BuildRun
from weber.api import train
from weber.config.run import RunConfig


def _build(build_run: BuildRun, name: str, pictures: Path, steps: int) -> RunConfig:
    first: dict[str, Any] = {"path": str(pictures), "name": "a", "resolution": [32, 48], "mirror": True, "share": 0.7}
    other = {"path": str(pictures), "name": "b", "resolution": 64, "color_jitter": 0.1, "num_colors": 1, "start_after": 2}
    return build_run(name, data=[first, other], train={"steps": steps, "batch_size": 2, "balance": "sets"})


def test_it_goes_on_as_if_it_had_not_stopped(build_run: BuildRun, pictures: Path) -> None:
    train(_build(build_run, "whole", pictures, 6))
    train(_build(build_run, "parts", pictures, 3))
    train(_build(build_run, "parts", pictures, 6), resume=True)
    whole, parts = (load_file(_build(build_run, name, pictures, 6).output.folder / "adapter.safetensors") for name in ("whole", "parts"))
    assert whole.keys() == parts.keys() and all(equal(tensor, parts[name]) for name, tensor in whole.items())
