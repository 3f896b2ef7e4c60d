"""A run of the pocket model on a few real pictures, small enough for every test."""

from __future__ import annotations

import io
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from rich.console import Console

from weber.adapters.factors import Factors
from weber.adapters.files import save_adapter
from weber.cache.store import Store
from weber.config.load import build_config
from weber.config.run import RunConfig
from weber.families.flux1.keys import PAIRINGS
from weber.families.flux1.variants import POCKET
from weber.families.tensors import open_weights
from weber.planning.plan import build_plan
from weber.track.progress import Watcher
from weber.training.assemble import encode_cache

NEED_CHECKPOINTING = {"swap_blocks", "offload_activations", "fit"}
PROMPTS = ["a dog", "a cat", "a red apple"]
BuildRun = Callable[..., RunConfig]


def build_watcher() -> tuple[Watcher, io.StringIO]:
    """A watcher that writes plain lines into a buffer."""
    buffer = io.StringIO()
    return Watcher(Console(file=buffer, width=200)), buffer


def _build_tree(pictures: Path, *, folder: Path, cache: Path) -> dict[str, Any]:
    return {
        "model": {"variant": "pocket"},
        "data": [{"path": str(pictures)}],
        "adapter": {"rank": 4},
        "memory": {"device": "cpu"},
        "optim": {"lr": 1e-3},
        "train": {"steps": 10, "batch_size": 2},
        "output": {"folder": str(folder), "cache": str(cache), "save_every": 3},
    }


@pytest.fixture(scope="session")
def encoded(tmp_path_factory: pytest.TempPathFactory, pictures: Path) -> Path:
    """What the pocket model's encoders make of the pictures, their captions and some prompts. Copy what you change."""
    folder = tmp_path_factory.mktemp("encoded")
    tree = _build_tree(pictures, folder=folder / "run", cache=folder / "cache")
    plan = build_plan(build_config(tree | {"sampling": {"prompts": PROMPTS}}))
    encode_cache(plan, Store(folder / "cache"), watcher=build_watcher()[0])
    return folder / "cache"


@pytest.fixture
def cache(tmp_path: Path, encoded: Path) -> Path:
    """The cache of a test's runs, which holds all of `encoded`. Tests of what is encoded have a fixture of this name that is empty."""
    return Path(shutil.copytree(encoded, tmp_path / "cache"))


@pytest.fixture
def build_run(tmp_path: Path, pictures: Path, cache: Path) -> BuildRun:
    """Settings of a small run; keyword arguments named after sections override them."""

    def build(name: str = "run", **sections: dict[str, Any] | list[dict[str, Any]]) -> RunConfig:
        tree = _build_tree(pictures, folder=tmp_path / name, cache=cache)
        for section, values in sections.items():
            if isinstance(values, list):
                tree[section] = [tree[section][0] | values[0], *values[1:]] if len(values) else values
            else:
                tree[section] = tree.get(section, {}) | values
        if not NEED_CHECKPOINTING & tree["memory"].keys():  # without it the numbers are the same, in less time
            tree["memory"] = {"gradient_checkpointing": "none"} | tree["memory"]
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


@pytest.fixture(scope="module")
def small_cache(tmp_path_factory: pytest.TempPathFactory, encoded: Path) -> Path:
    """What is encoded once for all runs of a module."""
    return Path(shutil.copytree(encoded, tmp_path_factory.mktemp("small") / "cache"))


@pytest.fixture
def build_small(build_run: BuildRun, small_cache: Path) -> BuildRun:
    """Settings of a run of four small steps with a checkpoint after two."""

    def build(name: str, **sections: Any) -> RunConfig:
        own = {"train": {"steps": 4, "batch_size": 1}, "data": [{"resolution": 64}]} | sections
        return build_run(name, **own, output={"save_every": 2, "cache": str(small_cache)})

    return build


def write_pocket_lora(path: Path, *, rank: int = 4, dora: bool = False, scale: float = 0.3) -> Path:
    """A file that changes what the pocket model says."""
    generator = torch.Generator().manual_seed(rank)
    weights, modules = open_weights([POCKET / "transformer" / "diffusion_pytorch_model.safetensors"]), {}
    for name in ("transformer_blocks.0.attn.to_q", "single_transformer_blocks.0.proj_mlp"):
        rows, columns = weights[f"{name}.weight"].shape
        down, up = (scale * torch.randn(*shape, generator=generator) for shape in ((rank, columns), (rows, rank)))
        modules[name] = Factors(down, up, 2.0, 1 + torch.rand(rows, generator=generator) if dora else None)
    save_adapter(path, modules, layout="diffusers" if dora else "comfyui", facts={}, metadata={}, pairings=PAIRINGS)
    return path
