"""An optimizer's state as tensors: through a file and into a fresh optimizer, and the bits go on as if nothing had happened."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file, save_file
from torch import Tensor, nn

from weber.config.optim import OptimConfig
from weber.errors import CheckpointError
from weber.optim.states import list_states, load_states
from weber.optim.table import OPTIMIZERS, build_optimizer

Named = list[tuple[str, nn.Parameter]]


def _parameters(dtype: torch.dtype) -> Named:
    generator = torch.Generator().manual_seed(0)
    shapes = {"blocks.0.lora_A.default.weight": (4, 8), "blocks.0.lora_B.default.weight": (8, 4), "proj.weight": (3,)}
    return [(name, nn.Parameter(torch.randn(*shape, generator=generator).to(dtype))) for name, shape in shapes.items()]


def _build(parameters: Named, name: str) -> torch.optim.Optimizer:
    return build_optimizer([parameter for _, parameter in parameters], OptimConfig(name=name, lr=1e-3), seed=5)


def _train(optimizer: torch.optim.Optimizer, parameters: Named, *, start: int, stop: int) -> None:
    for step in range(start, stop):
        for position, (_, parameter) in enumerate(parameters):
            gradient = torch.randn(parameter.shape, generator=torch.Generator().manual_seed(10 * step + position))
            parameter.grad = gradient.to(parameter.dtype)
        optimizer.step()
        optimizer.zero_grad()


def _copy(parameters: Named) -> Named:
    return [(name, nn.Parameter(parameter.detach().clone())) for name, parameter in parameters]


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
@pytest.mark.parametrize("name", OPTIMIZERS)
def test_a_run_goes_on_bit_for_bit(name: str, dtype: torch.dtype, tmp_path: Path) -> None:
    whole = _parameters(dtype)
    in_one_go = _build(whole, name)
    _train(in_one_go, whole, start=0, stop=10)

    first = _parameters(dtype)
    optimizer = _build(first, name)
    _train(optimizer, first, start=0, stop=6)
    save_file(list_states(optimizer, first), tmp_path / "optimizer.safetensors")
    second = _copy(first)
    fresh = _build(second, name)
    load_states(fresh, second, tensors=load_file(tmp_path / "optimizer.safetensors"))
    _train(fresh, second, start=6, stop=10)

    assert all(torch.equal(one, other) for (_, one), (_, other) in zip(whole, second, strict=True))
    expected, got = list_states(in_one_go, whole), list_states(fresh, second)
    assert expected.keys() == got.keys()
    for key, tensor in expected.items():
        assert tensor.dtype == got[key].dtype, key
        assert torch.equal(tensor, got[key]), key


@pytest.mark.parametrize(("name", "dtype"), [("adamw", torch.float32), ("adamw_bf16", torch.bfloat16)])
def test_names_and_dtypes(name: str, dtype: torch.dtype) -> None:
    parameters = _parameters(torch.float32)
    optimizer = _build(parameters, name)
    _train(optimizer, parameters, start=0, stop=2)
    states = list_states(optimizer, parameters)
    assert set(states) == {f"{one}/{state}" for one, _ in parameters for state in ("step", "exp_avg", "exp_avg_sq")}
    assert {tensor.dtype for key, tensor in states.items() if not key.endswith("/step")} == {dtype}
    assert {tensor.item() for key, tensor in states.items() if key.endswith("/step")} == {2.0}
    assert not any(tensor.requires_grad for tensor in states.values())


@pytest.mark.parametrize("name", OPTIMIZERS)
def test_before_the_first_step_there_is_nothing(name: str, tmp_path: Path) -> None:
    parameters = _parameters(torch.float32)
    optimizer = _build(parameters, name)
    assert list_states(optimizer, parameters) == {}
    save_file({}, tmp_path / "empty.safetensors")
    load_states(optimizer, parameters, tensors=load_file(tmp_path / "empty.safetensors"))
    untouched = _parameters(torch.float32)
    _train(optimizer, parameters, start=0, stop=3)
    _train(_build(untouched, name), untouched, start=0, stop=3)
    assert all(torch.equal(one, other) for (_, one), (_, other) in zip(parameters, untouched, strict=True))


def test_the_state_of_another_adapter_is_refused() -> None:
    parameters = _parameters(torch.float32)
    optimizer = _build(parameters, "adamw")
    tensors: dict[str, Tensor] = {"stranger.weight/exp_avg": torch.zeros(3)}
    with pytest.raises(CheckpointError) as caught:
        load_states(optimizer, parameters, tensors=tensors)
    assert "got: stranger.weight" in str(caught.value)
    assert "fix: resume with the settings of the run" in str(caught.value)
