"""What the tests of the families share: FLUX.1 models as `Family`, and what their networks are fed."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from pathlib import Path

import pytest
import torch
from torch import Tensor, nn

from weber.config.model import ModelConfig
from weber.families.flux1.components import Flux1
from weber.families.pairing import Pairing, build_original_weights
from weber.families.table import build_family
from weber.families.tensors import Weights, build_entry, save_weights


@pytest.fixture(scope="session")
def dev(tiny_model: Path) -> Flux1:
    """A tiny model as FLUX.1-dev."""
    family = build_family(ModelConfig(path=str(tiny_model)))
    assert isinstance(family, Flux1)
    return family


@pytest.fixture(scope="session")
def schnell(tiny_schnell: Path) -> Flux1:
    """A tiny model as FLUX.1-schnell."""
    family = build_family(ModelConfig(path=str(tiny_schnell)))
    assert isinstance(family, Flux1)
    return family


@pytest.fixture(params=["dev", "schnell"])
def family(request: pytest.FixtureRequest) -> Flux1:
    """Both tiny models, one after the other."""
    chosen = request.getfixturevalue(request.param)
    assert isinstance(chosen, Flux1)
    return chosen


@pytest.fixture(scope="session")
def draw_inputs() -> Callable[..., tuple[Tensor, Tensor, dict[str, Tensor]]]:
    """A function that draws noisy latents, t and a condition for a tiny model: (batch, height and width of the latents, guidance?)."""

    def draw(
        batch: int, height: int, width: int, *, has_guidance: bool, num_text_tokens: int = 8
    ) -> tuple[Tensor, Tensor, dict[str, Tensor]]:
        generator = torch.Generator().manual_seed(1000 * batch + 10 * height + width)
        condition = {
            "text": torch.randn(batch, num_text_tokens, 32, generator=generator),
            "pooled": torch.randn(batch, 32, generator=generator),
        }
        if has_guidance:
            condition["guidance"] = 1 + 4 * torch.rand(batch, generator=generator)
        return torch.randn(batch, 16, height, width, generator=generator), torch.rand(batch, generator=generator), condition

    return draw


@pytest.fixture(scope="session")
def write_single() -> Callable[..., Path]:
    """A function that writes a single file: a library's model under the makers' names, `prefix` before each."""

    def write(
        path: Path,
        model: nn.Module,
        *,
        pairings: Sequence[Pairing] | None = None,
        prefix: str = "",
        metadata: dict[str, str] | None = None,
    ) -> Path:
        weights: Weights = {name: build_entry(tensor) for name, tensor in model.state_dict().items()}
        if pairings is not None:
            weights = build_original_weights(weights, pairings)
        save_weights(path, {prefix + name: entry for name, entry in weights.items()}, metadata=metadata or {})
        return path

    return write
