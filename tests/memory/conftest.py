"""What the tests of memory share: a tiny network of each family with a LoRA that does something, and what it is fed."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import pytest
import torch
from diffusers import Flux2Transformer2DModel, Flux3Transformer2DModel, FluxTransformer2DModel
from torch import Tensor, nn

from weber.adapters.lora import build_lora
from weber.adapters.target import list_targets
from weber.config.adapter import AdapterConfig
from weber.families.family import Predictor
from weber.families.flux1.components import Flux1
from weber.families.flux1.predict import Flux1Predictor
from weber.families.flux2.components import Flux2
from weber.families.flux2.predict import Flux2Predictor
from weber.families.flux3.components import Flux3
from weber.families.flux3.predict import Flux3Predictor

BATCH, HEIGHT, WIDTH, NUM_TEXT = 2, 8, 6, 7
REFERENCE = (6, 4)
SIZES: dict[str, Any] = {"attention_head_dim": 16, "num_attention_heads": 2}


@dataclass
class Network:
    """A network, its family, its blocks, and what learns in it."""

    predictor: Predictor
    family: Any
    blocks: list[nn.Module]
    parameters: list[tuple[str, nn.Parameter]]
    channels: int
    text: dict[str, int]

    def draw(self, *, references: int = 0, has_reference_t: bool = False) -> tuple[Tensor, Tensor, dict[str, Tensor]]:
        """Noisy latents, t, and a condition with that many references."""
        generator = torch.Generator().manual_seed(1)
        condition = {"text": torch.randn(BATCH, NUM_TEXT, self.text["text"], generator=generator), "guidance": torch.ones(BATCH)}
        if "pooled" in self.text:
            condition["pooled"] = torch.randn(BATCH, self.text["pooled"], generator=generator)
        for number in range(references):
            condition[f"reference_{number}"] = torch.randn(BATCH, self.channels, *REFERENCE, generator=generator)
        if has_reference_t:
            condition["reference_t"] = torch.zeros(BATCH)
        noisy = torch.randn(BATCH, self.channels, HEIGHT, WIDTH, generator=generator)
        return noisy, torch.rand(BATCH, generator=generator), condition

    def learn(self, *inputs: Any) -> dict[str, Tensor]:
        """The loss and the gradient of everything that learns; gradients are empty afterwards."""
        loss = self.predictor(*inputs).float().square().mean()
        loss.backward()
        found = {"loss": loss.detach()} | {name: one.grad for name, one in self.parameters if one.grad is not None}
        for _, one in self.parameters:
            one.grad = None
        return found


def _build_first() -> tuple[nn.Module, Any, Any, int, dict[str, int]]:
    network = FluxTransformer2DModel(
        in_channels=64,
        num_layers=2,
        num_single_layers=3,
        joint_attention_dim=32,
        pooled_projection_dim=24,
        guidance_embeds=True,
        axes_dims_rope=(4, 6, 6),
        **SIZES,
    )
    return network, Flux1Predictor, Flux1, 16, {"text": 32, "pooled": 24}


def _build_second() -> tuple[nn.Module, Any, Any, int, dict[str, int]]:
    network = Flux2Transformer2DModel(
        in_channels=128, num_layers=2, num_single_layers=3, joint_attention_dim=48, axes_dims_rope=(4, 4, 4, 4), **SIZES
    )
    return network, Flux2Predictor, Flux2, 128, {"text": 48}


def _build_third() -> tuple[nn.Module, Any, Any, int, dict[str, int]]:
    network = Flux3Transformer2DModel(
        in_channels=128,
        cond_in_channels=128,
        num_layers=1,
        num_single_layers=2,
        joint_attention_dim=128,
        timestep_channels=32,
        axes_dims_rope=(4, 4, 4, 4),
        **SIZES,
    )
    return network, Flux3Predictor, Flux3, 128, {"text": 128}


FAMILIES = {"first": _build_first, "second": _build_second, "third": _build_third}


@pytest.fixture
def build_network() -> Callable[..., Network]:
    """A function that builds the network of the "first", "second" or "third" family: (family, dtype, dropout=0.0)."""

    def build(name: str, dtype: torch.dtype = torch.float32, *, dropout: float = 0.0) -> Network:
        with torch.random.fork_rng(devices=[]):
            torch.default_generator.manual_seed(0)
            transformer, build_predictor, family, channels, text = FAMILIES[name]()
            transformer = nn.Module.to(transformer, dtype).requires_grad_(False)
            modules = list_targets(transformer, "all+ffs+references" if name == "third" else "blocks", sets=family.adapter_targets)
            parameters = build_lora(transformer, AdapterConfig(rank=4, dropout=dropout), modules=modules, seed=0)
            for path, one in parameters:
                if "lora_B" in path:
                    nn.init.normal_(one, std=0.1)
        blocks = [module for module in transformer.modules() if type(module).__name__.endswith("TransformerBlock")]
        return Network(build_predictor(transformer), family, blocks, parameters, channels, text)

    return build
