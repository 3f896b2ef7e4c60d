"""What the tests of adapters share: tiny networks of two families, adapters on them that do something, and random factors."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from pathlib import Path

import pytest
import torch
from diffusers import Flux2Transformer2DModel, FluxTransformer2DModel
from torch import Tensor, nn

from weber.adapters.factors import Factors
from weber.adapters.lora import build_lora
from weber.adapters.target import list_targets
from weber.config.adapter import AdapterConfig
from weber.families.flux1.keys import ADAPTER_TARGETS

DrawFactors = Callable[..., dict[str, Factors]]


@pytest.fixture
def load_network(tiny_model: Path) -> Callable[..., nn.Module]:
    """A function that reads a fresh tiny network: (dtype)."""

    def load(dtype: torch.dtype = torch.float32) -> nn.Module:
        network: nn.Module = FluxTransformer2DModel.from_pretrained(tiny_model / "transformer", torch_dtype=dtype)
        return network.requires_grad_(False)

    return load


@pytest.fixture
def build_second() -> Callable[[], nn.Module]:
    """A function that builds a tiny network of the second family, the same each time."""

    def build() -> nn.Module:
        with torch.random.fork_rng(devices=[]):
            torch.default_generator.manual_seed(0)
            return Flux2Transformer2DModel(
                in_channels=16,
                num_layers=2,
                num_single_layers=2,
                attention_head_dim=16,
                num_attention_heads=2,
                joint_attention_dim=24,
                timestep_guidance_channels=16,
                axes_dims_rope=(4, 4, 4, 4),
            ).requires_grad_(False)

    return build


@pytest.fixture
def put_adapter() -> Callable[..., list[tuple[str, nn.Parameter]]]:
    """A function that puts an adapter on a network, with random B where asked: (network, config, seed=0, random_b=False)."""

    def put(network: nn.Module, config: AdapterConfig, *, seed: int = 0, random_b: bool = False) -> list[tuple[str, nn.Parameter]]:
        modules = list_targets(network, config.chosen_targets, sets=ADAPTER_TARGETS)
        parameters = build_lora(network, config, modules=modules, seed=seed)
        generator = torch.Generator().manual_seed(seed)
        for name, parameter in parameters:
            if random_b and "lora_B" in name:
                parameter.data = 0.1 * torch.randn(parameter.shape, generator=generator)
        return parameters

    return put


@pytest.fixture
def draw_factors() -> DrawFactors:
    """A function that draws factors for modules of a network: (network, modules, ranks, alphas=None, dora=False, seed=0).

    Ranks and alphas are dealt out in turn; alpha is the rank where none are given.
    """

    def draw(
        network: nn.Module,
        modules: Sequence[str],
        *,
        ranks: Sequence[int] = (2,),
        alphas: Sequence[float] = (),
        dora: bool = False,
        seed: int = 0,
    ) -> dict[str, Factors]:
        generator = torch.Generator().manual_seed(seed)
        drawn = {}
        for number, module in enumerate(modules):
            rows, columns = network.get_submodule(module).weight.shape
            rank = ranks[number % len(ranks)]
            drawn[module] = Factors(
                0.3 * torch.randn(rank, columns, generator=generator),
                0.3 * torch.randn(rows, rank, generator=generator),
                float(alphas[number % len(alphas)] if alphas else rank),
                1 + torch.rand(rows, generator=generator) if dora else None,
            )
        return drawn

    return draw


@pytest.fixture
def predict() -> Callable[[nn.Module], Tensor]:
    """A function that runs a tiny network of either family on one fixed input."""
    generator = torch.Generator().manual_seed(7)
    text, pooled = torch.randn(1, 5, 32, generator=generator), torch.randn(1, 32, generator=generator)
    image, ids = torch.randn(1, 6, 64, generator=generator), torch.randint(4, (6, 4), generator=generator).float()

    def run(network: nn.Module) -> Tensor:
        dtype = next(parameter.dtype for parameter in network.parameters() if not parameter.requires_grad)
        is_second = isinstance(network, Flux2Transformer2DModel)
        inputs = {"hidden_states": image[..., :16] if is_second else image, "encoder_hidden_states": text[..., :24] if is_second else text}
        inputs |= {} if is_second else {"pooled_projections": pooled}
        axes = 4 if is_second else 3
        output: Tensor = network(
            **{name: tensor.to(dtype) for name, tensor in inputs.items()},
            img_ids=ids[:, :axes],
            txt_ids=torch.zeros(5, axes),
            timestep=torch.tensor([0.4]),
            guidance=torch.tensor([2.0]),
            return_dict=False,
        )[0]
        return output

    return run


@pytest.fixture
def apply_factors() -> Callable[[nn.Module, Mapping[str, Factors]], nn.Module]:
    """A function that adds factors to a network's weights, by the formula."""

    def apply(network: nn.Module, modules: Mapping[str, Factors]) -> nn.Module:
        for name, factors in modules.items():
            weight = network.get_submodule(name).weight
            weight.data = factors.build_weight(weight.data)
        return network

    return apply
