"""AdamW with bf16 moments: near fp32 AdamW, unbiased in its rounding, and the same bits from the same seed."""

from __future__ import annotations

import pytest
import torch
from torch import Tensor, nn

from weber.optim.adamw_bf16 import AdamWBf16, write_rounded

LR = 1e-4


def _build(parameters: list[nn.Parameter], *, lr: float = LR, seed: int = 0, weight_decay: float = 0.01, eps: float = 1e-8) -> AdamWBf16:
    return AdamWBf16(parameters, lr=lr, betas=(0.9, 0.999), eps=eps, weight_decay=weight_decay, seed=seed)


def _draw(*shape: int, seed: int = 0) -> Tensor:
    return torch.randn(*shape, generator=torch.Generator().manual_seed(seed))


def _train(optimizer: torch.optim.Optimizer, parameters: list[nn.Parameter], *, start: int, stop: int) -> None:
    """Steps with gradients that depend on the step alone, of very different sizes."""
    for step in range(start, stop):
        for position, parameter in enumerate(parameters):
            gradient = _draw(*parameter.shape, seed=100 * step + position) + 0.5
            parameter.grad = (gradient * 10.0 ** (-3 * position)).to(parameter.dtype)
        optimizer.step()


def _parameters(dtype: torch.dtype = torch.float32) -> list[nn.Parameter]:
    return [nn.Parameter(_draw(32, 16, seed=1).to(dtype)), nn.Parameter(_draw(64, seed=2).to(dtype))]


@pytest.mark.parametrize("weight_decay", [0.0, 0.1])
def test_near_adamw_on_fp32_parameters(weight_decay: float) -> None:
    ours, theirs, start = _parameters(), _parameters(), _parameters()
    optimizer = _build(ours, weight_decay=weight_decay)
    _train(optimizer, ours, start=0, stop=50)
    _train(torch.optim.AdamW(theirs, lr=LR, betas=(0.9, 0.999), eps=1e-8, weight_decay=weight_decay), theirs, start=0, stop=50)
    for mine, exact, before in zip(ours, theirs, start, strict=True):
        assert mine.dtype == torch.float32
        moved = (exact - before).abs().mean()
        assert moved > 5 * LR
        assert (mine - exact).abs().mean() < 0.01 * moved
        state = optimizer.state[mine]
        assert (state["exp_avg"].dtype, state["exp_avg_sq"].dtype) == (torch.bfloat16, torch.bfloat16)
        assert state["step"].item() == 50


def test_the_first_step_is_that_of_adamw() -> None:
    """Rounding of the moments acts from the second step on."""
    ours, theirs = _parameters(), _parameters()
    _train(_build(ours), ours, start=0, stop=1)
    _train(torch.optim.AdamW(theirs, lr=LR, weight_decay=0.01), theirs, start=0, stop=1)
    for mine, exact in zip(ours, theirs, strict=True):
        assert torch.allclose(mine, exact, rtol=0, atol=1e-8)


def _learn(optimizer: torch.optim.Optimizer, weight: nn.Parameter, target: Tensor, *, num_steps: int) -> float:
    """Mean error left after minimizing |weight - target|^2."""
    for _ in range(num_steps):
        optimizer.zero_grad()
        (weight.float() - target).square().mean().backward()
        optimizer.step()
    return (weight.detach().float() - target).abs().mean().item()


def test_learns_on_bf16_parameters_where_plain_adamw_does_not() -> None:
    """At lr 1e-4, half a bf16 step at 0.5 is 0.001: rounding to nearest loses every update (ecosystem.md 0.3)."""
    base = 0.6 + 0.1 * torch.rand(256, generator=torch.Generator().manual_seed(0))
    target = base + 0.03
    left = {}
    for name in ("plain", "ours"):
        weight = nn.Parameter(base.bfloat16())
        plain = torch.optim.AdamW([weight], lr=LR, weight_decay=0.0)
        left[name] = _learn(plain if name == "plain" else _build([weight], weight_decay=0.0), weight, target, num_steps=400)
    assert left["plain"] > 0.029
    assert left["ours"] < 0.008  # neighbors are 0.004 apart there


@pytest.mark.parametrize("value", [1.0009765625, -0.30029296875, 3.14159e-8, -1.7e30, 1.0, 0.0])
def test_rounding_is_right_on_average(value: float) -> None:
    """Of n roundings to one of two neighbors, the mean lies within 5 standard errors of the value."""
    num = 100_000
    source, target = torch.full((num,), value), torch.empty(num, dtype=torch.bfloat16)
    write_rounded(target, source, torch.Generator().manual_seed(0))
    values = target.double()
    below, above = values.min().item(), values.max().item()
    exact = source[0].double().item()
    assert below <= exact <= above
    assert set(values.tolist()) <= {below, above}
    if below == above:
        assert exact == below
    else:
        assert torch.nextafter(torch.tensor(below).bfloat16(), torch.tensor(above).bfloat16()).item() == above
        share = (exact - below) / (above - below)
        standard_error = (above - below) * (share * (1 - share) / num) ** 0.5
        assert abs(values.mean().item() - exact) < 5 * standard_error


def test_rounding_of_many_values_has_no_bias() -> None:
    source = _draw(1_000_000)
    target = torch.empty_like(source, dtype=torch.bfloat16)
    write_rounded(target, source, torch.Generator().manual_seed(1))
    error = target.double() - source.double()
    assert abs(error.mean().item()) < 5 * error.std().item() / 1000
    assert (error.abs() <= 2.0**-7 * source.abs()).all()


def test_rounding_keeps_layout_apart_from_memory() -> None:
    source = torch.arange(12.0).view(3, 4).T
    target = torch.empty(4, 3, dtype=torch.bfloat16)
    write_rounded(target, source, torch.Generator())
    assert torch.equal(target.float(), source)


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
def test_the_seed_decides_the_bits(dtype: torch.dtype) -> None:
    results = []
    for seed, disturbance in ((3, 0), (3, 1), (4, 0)):
        torch.manual_seed(disturbance)
        parameters = _parameters(dtype)
        _train(_build(parameters, seed=seed), parameters, start=0, stop=5)
        results.append(torch.cat([parameter.detach().flatten() for parameter in parameters]))
    assert torch.equal(results[0], results[1])
    assert not torch.equal(results[0], results[2])


def test_global_random_state_is_left_alone() -> None:
    parameters = _parameters()
    before = torch.get_rng_state()
    _train(_build(parameters), parameters, start=0, stop=2)
    assert torch.equal(torch.get_rng_state(), before)


def test_parameters_without_gradient_are_left_alone() -> None:
    parameters = _parameters()
    before = parameters[1].clone()
    parameters[0].grad = torch.ones_like(parameters[0])
    optimizer = _build(parameters)
    optimizer.step()
    assert torch.equal(parameters[1], before)
    assert not optimizer.state[parameters[1]]


def test_settings_act() -> None:
    moved = {}
    for name, settings in {"base": {}, "lr": {"lr": 2e-4}, "decay": {"weight_decay": 0.5}, "eps": {"eps": 1.0}}.items():
        parameters = _parameters()
        _train(_build(parameters, **settings), parameters, start=0, stop=3)
        moved[name] = (parameters[0] - _parameters()[0]).detach()
    assert moved["lr"].abs().mean().item() == pytest.approx(2 * moved["base"].abs().mean().item(), rel=0.05)
    assert torch.allclose(moved["decay"] - moved["base"], -3 * LR * 0.49 * _parameters()[0], rtol=0.05, atol=1e-6)
    assert moved["eps"].abs().mean() < 0.7 * moved["base"].abs().mean()
