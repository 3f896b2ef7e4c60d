"""What the tests of adapters share: a tiny network, and adapters on it that do something."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import pytest
import torch
from diffusers import FluxTransformer2DModel
from torch import Tensor, nn

from weber.adapters.lora import build_lora
from weber.adapters.target import list_targets
from weber.config.adapter import AdapterConfig
from weber.families.flux1.keys import ADAPTER_TARGETS


@pytest.fixture
def load_network(tiny_model: Path) -> Callable[..., nn.Module]:
    """A function that reads a fresh tiny network: (dtype)."""

    def load(dtype: torch.dtype = torch.float32) -> nn.Module:
        network: nn.Module = FluxTransformer2DModel.from_pretrained(tiny_model / "transformer", torch_dtype=dtype)
        return network.requires_grad_(False)

    return load


@pytest.fixture
def put_adapter() -> Callable[..., list[tuple[str, nn.Parameter]]]:
    """A function that puts an adapter on a network, with random B where asked: (network, config, seed=0, random_b=False)."""

    def put(network: nn.Module, config: AdapterConfig, *, seed: int = 0, random_b: bool = False) -> list[tuple[str, nn.Parameter]]:
        modules = list_targets(network, config.targets, sets=ADAPTER_TARGETS)
        parameters = build_lora(network, config, modules=modules, seed=seed)
        generator = torch.Generator().manual_seed(seed)
        for name, parameter in parameters:
            if random_b and "lora_B" in name:
                parameter.data = 0.1 * torch.randn(parameter.shape, generator=generator)
        return parameters

    return put


@pytest.fixture
def predict() -> Callable[[nn.Module], Tensor]:
    """A function that runs a tiny network on one fixed input."""
    generator = torch.Generator().manual_seed(7)
    inputs = {
        "hidden_states": torch.randn(1, 6, 64, generator=generator),
        "encoder_hidden_states": torch.randn(1, 5, 32, generator=generator),
        "pooled_projections": torch.randn(1, 32, generator=generator),
    }
    ids = {"img_ids": torch.randint(4, (6, 3), generator=generator).float(), "txt_ids": torch.zeros(5, 3)}

    def run(network: nn.Module) -> Tensor:
        dtype = next(parameter.dtype for parameter in network.parameters() if not parameter.requires_grad)
        cast = {name: tensor.to(dtype) for name, tensor in inputs.items()}
        output: Tensor = network(**cast, **ids, timestep=torch.tensor([0.4]), guidance=torch.tensor([2.0]), return_dict=False)[0]
        return output

    return run
