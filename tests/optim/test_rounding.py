"""Stochastic rounding to bf16: right on average, between the two neighbors, and the same bits from the same seed."""

from __future__ import annotations

import pytest
import torch

from weber.optim.rounding import draw_rounded


def _seeded(seed: int) -> torch.Generator:
    return torch.Generator().manual_seed(seed)


@pytest.mark.parametrize("value", [1.0009765625, -0.30029296875, 3.14159e-8, -1.7e30, 1.0, 0.0])
def test_right_on_average(value: float) -> None:
    """Of n roundings to one of two neighbors, the mean lies within 5 standard errors of the value."""
    num = 100_000
    source = torch.full((num,), value)
    rounded = draw_rounded(source, _seeded(0))
    assert rounded.dtype == torch.bfloat16
    values = rounded.double()
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


def test_many_values_have_no_bias() -> None:
    source = torch.randn(1_000_000, generator=_seeded(0))
    error = draw_rounded(source, _seeded(1)).double() - source.double()
    assert abs(error.mean().item()) < 5 * error.std().item() / 1000
    assert (error.abs() <= 2.0**-7 * source.abs()).all()


def test_what_bf16_can_hold_is_kept_in_any_layout() -> None:
    source = torch.arange(12.0).view(3, 4).T
    assert torch.equal(draw_rounded(source, _seeded(0)).float(), source)


def test_the_generator_alone_decides() -> None:
    source = torch.randn(1000, generator=_seeded(0))
    before = torch.get_rng_state()
    one, same, other = (draw_rounded(source, _seeded(seed)) for seed in (3, 3, 4))
    assert torch.equal(one, same)
    assert not torch.equal(one, other)
    assert torch.equal(torch.get_rng_state(), before)


@pytest.mark.parametrize("value", [float("inf"), float("-inf"), float("nan")])
def test_what_is_not_finite_stays_so(value: float) -> None:
    rounded = draw_rounded(torch.full((1000,), value), _seeded(0)).float()
    assert torch.equal(rounded, torch.full((1000,), value)) if value == value else rounded.isnan().all()
