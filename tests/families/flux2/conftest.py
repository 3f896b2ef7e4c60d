"""What the tests of FLUX.2 share: tiny models as folders, as families and as the library's own pipelines."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
import torch
from diffusers import Flux2KleinPipeline, Flux2Pipeline
from torch import Tensor

from weber.config.model import ModelConfig
from weber.families.flux2.components import Flux2
from weber.families.table import build_family
from weber.pocket.random_flux2 import Kind, build_random_flux2

KINDS: tuple[Kind, ...] = ("dev", "klein", "klein-base")
TEXT_WIDTH = 48


@pytest.fixture(scope="session")
def models(tmp_path_factory: pytest.TempPathFactory) -> Iterator[dict[str, Path]]:
    """A tiny random model of every kind. Copy what you change."""
    root = tmp_path_factory.mktemp("flux2")
    folders = {kind: build_random_flux2(root / kind, kind) for kind in KINDS}
    files = {path: path.stat().st_mtime_ns for path in root.rglob("*")}
    yield folders
    assert {path: path.stat().st_mtime_ns for path in root.rglob("*")} == files, "a test has changed a shared folder"


@pytest.fixture(scope="session")
def build() -> Callable[..., Flux2]:
    """A function that builds the family of a folder, as a run does; further settings of `[model]` by their names."""

    def build_it(folder: Path, variant: str | None = None, **settings: str) -> Flux2:
        family = build_family(ModelConfig(path=str(folder), variant=variant, **settings))
        assert isinstance(family, Flux2)
        return family

    return build_it


@pytest.fixture(scope="session")
def families(models: dict[str, Path], build: Callable[..., Flux2]) -> dict[str, Flux2]:
    """The tiny models as families."""
    return {kind: build(folder) for kind, folder in models.items()}


@pytest.fixture(scope="session")
def pipelines(models: dict[str, Path]) -> dict[str, Any]:
    """The tiny models as the library opens them; the tokenizer of dev stands in for its processor, which needs torchvision."""
    opened = {}
    for kind, folder in models.items():
        opened[kind] = (Flux2Pipeline if kind == "dev" else Flux2KleinPipeline).from_pretrained(folder)
        opened[kind].set_progress_bar_config(disable=True)
        for name in ("transformer", "vae", "text_encoder"):  # torch takes another convolution where weights want gradients
            getattr(opened[kind], name).requires_grad_(False)
    return opened


@pytest.fixture(scope="session")
def draw_inputs() -> Callable[..., tuple[Tensor, Tensor, dict[str, Tensor]]]:
    """A function that draws noisy latents, t and a condition: (batch, latent sizes of the picture and of its references)."""

    def draw(
        batch: int, sizes: list[tuple[int, int]], *, has_guidance: bool, num_text_tokens: int = 8
    ) -> tuple[Tensor, Tensor, dict[str, Tensor]]:
        generator = torch.Generator().manual_seed(1000 * batch + sum(10 * height + width for height, width in sizes))
        noisy, *references = [torch.randn(batch, 128, height, width, generator=generator) for height, width in sizes]
        condition = {f"reference_{number}": reference for number, reference in enumerate(references)}
        condition["text"] = torch.randn(batch, num_text_tokens, TEXT_WIDTH, generator=generator)
        if has_guidance:
            condition["guidance"] = 1 + 4 * torch.rand(batch, generator=generator)
        return noisy, torch.rand(batch, generator=generator), condition

    return draw
