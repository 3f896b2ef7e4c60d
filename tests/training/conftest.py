"""A run of the pocket model on a few real pictures, small enough for every test."""

from __future__ import annotations

import io
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from rich.console import Console

from weber.adapters.factors import Factors
from weber.adapters.files import save_adapter
from weber.config.load import build_config
from weber.config.run import RunConfig
from weber.families.flux1.keys import PAIRINGS
from weber.track.progress import Watcher

BuildRun = Callable[..., RunConfig]


def build_watcher() -> tuple[Watcher, io.StringIO]:
    """A watcher that writes plain lines into a buffer."""
    buffer = io.StringIO()
    return Watcher(Console(file=buffer, width=200)), buffer


@pytest.fixture
def build_run(tmp_path: Path, pictures: Path) -> BuildRun:
    """Settings of a small run; keyword arguments named after sections override them."""

    def build(name: str = "run", **sections: dict[str, Any] | list[dict[str, Any]]) -> RunConfig:
        tree: dict[str, Any] = {
            "model": {"variant": "pocket"},
            "data": [{"path": str(pictures)}],
            "adapter": {"rank": 4},
            "memory": {"device": "cpu"},
            "optim": {"lr": 1e-3},
            "train": {"steps": 10, "batch_size": 2},
            "output": {"folder": str(tmp_path / name), "cache": str(tmp_path / "cache"), "save_every": 3},
        }
        for section, values in sections.items():
            if isinstance(values, list):
                tree[section] = [tree[section][0] | values[0], *values[1:]] if len(values) else values
            else:
                tree[section] = tree.get(section, {}) | values
        return build_config(tree)

    return build


def write_lora(path: Path) -> Path:
    """A LoRA that changes what the tiny model paints, in the layout of other trainers."""
    generator = torch.Generator().manual_seed(0)
    modules = {
        f"single_transformer_blocks.{number}.attn.to_q": Factors(
            torch.randn(4, 32, generator=generator), torch.randn(32, 4, generator=generator), 8.0
        )
        for number in range(2)
    }
    save_adapter(path, modules, layout="comfyui", facts={}, metadata={}, pairings=PAIRINGS)
    return path
