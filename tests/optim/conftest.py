"""A small problem to train on, and optimizers by name."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import pytest
import torch
from torch import Tensor, nn

from weber.config.optim import OptimConfig
from weber.optim.stepper import Stepper
from weber.optim.table import OPTIMIZERS, OwnRow, build_optimizer

Named = list[tuple[str, nn.Parameter]]
SHAPES = {"blocks.0.lora_A.default.weight": (80, 64), "blocks.0.lora_B.default.weight": (8, 4), "proj.bias": (5,)}
"""One above the 4096 numbers from which on 8 bits act, and not a multiple of their blocks."""

OWN = {name: row for name, row in OPTIMIZERS.items() if isinstance(row, OwnRow)}
"""The optimizers of our own."""


@pytest.fixture(autouse=True)
def one_thread() -> Iterator[None]:
    """Tensors are so small here that threads would only wait for each other."""
    before = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(before)


def build_parameters(dtype: torch.dtype = torch.float32) -> Named:
    """The same numbers each time."""
    generator = torch.Generator().manual_seed(0)
    return [(name, nn.Parameter(torch.randn(*shape, generator=generator).to(dtype))) for name, shape in SHAPES.items()]


def build(parameters: Named, name: str, *, seed: int = 5, **settings: Any) -> torch.optim.Optimizer:
    """The optimizer of this name."""
    config = OptimConfig(name=name, **({"lr": 1e-3} | settings))  # type: ignore[arg-type]
    return build_optimizer([parameter for _, parameter in parameters], config, seed=seed)


def build_stepper(parameters: Named, name: str, *, seed: int = 5, **settings: Any) -> Stepper:
    """The same, made for single parameters."""
    optimizer = build(parameters, name, seed=seed, fused_backward=True, **settings)
    assert isinstance(optimizer, Stepper)
    return optimizer


def draw_gradient(parameter: Tensor, *parts: int) -> Tensor:
    """Depends on the parts alone; sizes differ from parameter to parameter."""
    seed = 0
    for part in parts:
        seed = 1000 * seed + part
    gradient = torch.randn(parameter.shape, generator=torch.Generator().manual_seed(seed)) + 0.5
    return (gradient * 10.0 ** (-parts[-1])).to(parameter.dtype)


def train(optimizer: torch.optim.Optimizer, parameters: Named, *, start: int, stop: int) -> None:
    """Steps with given gradients."""
    for step in range(start, stop):
        for position, (_, parameter) in enumerate(parameters):
            parameter.grad = draw_gradient(parameter, step, position)
        optimizer.step()
        optimizer.zero_grad()


def copy(parameters: Named) -> Named:
    """Parameters of the same values."""
    return [(name, nn.Parameter(parameter.detach().clone())) for name, parameter in parameters]


def is_equal(ones: Named, others: Named) -> bool:
    """Whether two lists of parameters hold the same bits."""
    return all(torch.equal(one, other) for (_, one), (_, other) in zip(ones, others, strict=True))
