"""Fused backward: the same bits as one step after the backward pass, with no gradient left, whatever comes."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager

import pytest
import torch
from torch import Tensor, nn
from torch.utils.checkpoint import checkpoint

from tests.optim.conftest import OWN, build_stepper
from weber.config.optim import OptimConfig
from weber.optim.fused import FusedBackward
from weber.optim.stepper import Stepper
from weber.optim.table import build_optimizer

CASES = [(name, dtype) for name, row in OWN.items() for dtype in row.dtypes]


class Network(nn.Module):
    """Two layers; the second is optional, so that it can be without a gradient."""

    def __init__(self, dtype: torch.dtype = torch.float32) -> None:
        super().__init__()
        generator = torch.Generator().manual_seed(0)
        self.first, self.second = nn.Linear(64, 96), nn.Linear(96, 4)
        for parameter in self.parameters():
            parameter.data = torch.randn(parameter.shape, generator=generator).to(dtype) / 8

    def forward(self, inputs: Tensor, *, is_deep: bool = True) -> Tensor:
        """Checkpointed, as in training."""
        hidden = checkpoint(self.first, inputs, use_reentrant=False).tanh()
        return self.second(hidden) if is_deep else hidden


def _build(name: str, dtype: torch.dtype = torch.float32) -> tuple[Network, Stepper]:
    network = Network(dtype)
    return network, build_stepper(list(network.named_parameters()), name)


def _loss(network: Network, seed: int, *, is_deep: bool = True) -> Tensor:
    inputs = torch.randn(32, 64, generator=torch.Generator().manual_seed(seed)).to(network.first.weight.dtype)
    return network(inputs, is_deep=is_deep).float().square().mean()


@contextmanager
def _unfused(stepper: Stepper, *, is_last: bool) -> Iterator[None]:
    yield
    if is_last:
        stepper.step()
        stepper.zero_grad()


@pytest.mark.parametrize("num_parts", [1, 2])
@pytest.mark.parametrize(("name", "dtype"), CASES)
def test_fused_is_unfused(name: str, dtype: torch.dtype, num_parts: int) -> None:
    """Two micro-batches; in the first one alone the second layer has a gradient."""
    results = []
    for is_fused in (True, False):
        network, stepper = _build(name, dtype)
        fused = FusedBackward(stepper) if is_fused else None
        for step in range(5):
            for part in range(num_parts):
                is_last = part == num_parts - 1
                with fused.step(is_last=is_last) if fused else _unfused(stepper, is_last=is_last):
                    _loss(network, 10 * step + part, is_deep=part == 0).backward()
                assert all((parameter.grad is None) == is_last for parameter in network.parameters())
        states = [tensor for parameter in network.parameters() for tensor in stepper.state[parameter].values()]
        results.append([*network.parameters(), *states])
    assert not torch.equal(results[0][0], Network(dtype).first.weight)
    assert all(torch.equal(one, other) for one, other in zip(*results, strict=True))


def test_parameters_with_rates_of_their_own_are_all_moved() -> None:
    results = []
    for is_fused in (True, False):
        network = Network()
        config = OptimConfig(name="adamw_8bit", lr=1e-3, fused_backward=True)
        stepper = build_optimizer(list(network.parameters()), config, seed=5, rates=[1.0, 2.0, 1.0, 3.0])
        assert isinstance(stepper, Stepper) and len(stepper.param_groups) == 3
        fused = FusedBackward(stepper) if is_fused else None
        with fused.step(is_last=True) if fused else _unfused(stepper, is_last=True):
            _loss(network, 0).backward()
        results.append(list(network.parameters()))
    moved = [(one - start).abs().max().item() for one, start in zip(results[0], Network().parameters(), strict=True)]
    assert [round(one / 1e-3, 1) for one in moved] == [1.0, 2.0, 1.0, 3.0], "a first step of Adam is as long as its rate"
    assert all(torch.equal(one, other) for one, other in zip(*results, strict=True))


def test_gradients_are_never_all_there() -> None:
    network, stepper = _build("adamw_8bit")
    seen: list[tuple[str, int]] = []
    names = {parameter: name for name, parameter in network.named_parameters()}

    def look(parameter: nn.Parameter) -> None:
        seen.append((names[parameter], sum(one.grad is not None for one in network.parameters())))

    fused = FusedBackward(stepper, on_stepped=look)
    before = {name: parameter.detach().clone() for name, parameter in network.named_parameters()}
    with fused.step(is_last=True):
        _loss(network, 0).backward()
    assert sorted(name for name, _ in seen) == sorted(names.values())
    assert max(number for _, number in seen) <= 1  # a layer's bias and weight come together
    assert all(not torch.equal(parameter, before[name]) for name, parameter in network.named_parameters())


@pytest.mark.parametrize("num_parts", [1, 2])
def test_the_norm_is_that_of_all_gradients(num_parts: int) -> None:
    network, stepper = _build("lion")
    fused, (plain, _) = FusedBackward(stepper), _build("lion")
    assert fused.norm is None
    for step in range(2):
        plain.load_state_dict(network.state_dict())
        for part in range(num_parts):
            with fused.step(is_last=part == num_parts - 1):
                _loss(network, 10 * step + part).backward()
            _loss(plain, 10 * step + part).backward()
        expected = nn.utils.get_total_norm([parameter.grad for parameter in plain.parameters() if parameter.grad is not None])
        assert fused.norm is not None and float(fused.norm) == pytest.approx(expected.item(), rel=1e-6)
        plain.zero_grad()


@pytest.mark.parametrize("name", OWN)
@pytest.mark.parametrize("bad", [float("nan"), float("inf")])
def test_what_is_not_finite_changes_nothing(name: str, bad: float) -> None:
    """The second layer has finite gradients and moves; the first keeps values, moments and step."""
    network, stepper = _build(name)
    fused = FusedBackward(stepper)
    with fused.step(is_last=True):
        _loss(network, 0).backward()
    before = [tensor.clone() for parameter in network.first.parameters() for tensor in (parameter, *stepper.state[parameter].values())]
    second = network.second.weight.detach().clone()
    with fused.step(is_last=True):
        loss = _loss(network, 1)
        network.first.weight.register_hook(lambda gradient: gradient * bad)
        network.first.bias.register_hook(lambda gradient: gradient * bad)
        loss.backward()
    stepper.take_back()
    after = [tensor for parameter in network.first.parameters() for tensor in (parameter, *stepper.state[parameter].values())]
    assert fused.norm is not None and not fused.norm.isfinite()
    assert all(torch.equal(one, other) for one, other in zip(before, after, strict=True))
    assert not torch.equal(network.second.weight, second)
    assert stepper.state[network.second.weight]["step"] == 2


def test_an_error_in_the_backward_pass_switches_it_off() -> None:
    network, stepper = _build("adamw")
    fused = FusedBackward(stepper)
    with pytest.raises(RuntimeError, match="stop"), fused.step(is_last=True):
        raise RuntimeError("stop")
    _loss(network, 0).backward()
    assert all(parameter.grad is not None for parameter in network.parameters())
    assert torch.equal(network.first.weight, Network().first.weight)


def test_a_gradient_that_comes_twice_is_an_error() -> None:
    network, stepper = _build("adamw")
    fused = FusedBackward(stepper)
    with pytest.raises(AssertionError, match="twice"), fused.step(is_last=True):
        _loss(network, 0).backward()
        _loss(network, 1).backward()


def test_after_closing_no_gradient_is_taken_as_it_comes() -> None:
    network, stepper = _build("adamw")
    fused = FusedBackward(stepper)
    fused.close()
    with fused.step(is_last=True):
        _loss(network, 0).backward()
        assert all(parameter.grad is not None for parameter in network.parameters())
