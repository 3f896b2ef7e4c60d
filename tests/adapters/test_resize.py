"""Lower ranks: which directions stay, and what is said to be lost."""

from __future__ import annotations

import math

import pytest
import torch

from tests.adapters.test_compare import build_diagonal
from weber.adapters.factors import Factors
from weber.adapters.read import FileLayer
from weber.adapters.resize import build_resized, build_tensors
from weber.errors import AdapterError


def _put(**layers: Factors) -> dict[str, FileLayer]:
    roles = ("down", "up", "alpha")
    return {name: FileLayer({role: f"{name}.{role}" for role in roles}, name, one) for name, one in layers.items()}


@pytest.mark.parametrize(
    ("rank", "energy", "left"),
    [(1, None, 1), (2, None, 2), (3, None, 3), (None, 0.5, 1), (None, 0.6, 2), (None, 25 / 30, 2), (None, 0.84, 3), (2, 0.99, 2)],
)
@pytest.mark.parametrize("alpha", [4.0, 1.0])
def test_a_change_of_known_directions(rank: int | None, energy: float | None, left: int, alpha: float) -> None:
    """4, 3, 2, 1: squares of 16, 9, 4, 1, of which those that are lost say the error."""
    layers = _put(a=build_diagonal(3, 1, 4, 2, alpha=alpha))
    resized, told = build_resized(layers, rank=rank, energy=energy)
    error = math.sqrt(sum(value**2 for value in (4, 3, 2, 1)[left:]) / 30)
    assert (resized["a"].rank, resized["a"].alpha, told.cuts[0].rank_before) == (left, left, 4)
    assert told.error == pytest.approx(error, rel=1e-6) and told.cuts[0].error == pytest.approx(error, rel=1e-6)
    values = [value if value > 4 - left else 0 for value in (3, 1, 4, 2)]
    assert torch.allclose(resized["a"].build_delta(), build_diagonal(*values).build_delta(), atol=1e-6)
    tensors = build_tensors(layers, resized)
    assert tensors["a.alpha"] == left and tensors["a.down"].shape == (left, 6) and tensors["a.up"].shape == (8, left)


def test_several_layers_and_what_is_worst() -> None:
    layers = _put(small=build_diagonal(1, 1), large=build_diagonal(10, 1, 1), low=build_diagonal(5), nothing=build_diagonal(0, 0))
    resized, told = build_resized(layers, rank=1, energy=None)
    assert [one.name for one in told.worst] == ["small", "large"]
    assert told.worst[0].error == pytest.approx(math.sqrt(1 / 2)) and told.worst[1].error == pytest.approx(math.sqrt(2 / 102))
    assert told.error == pytest.approx(math.sqrt(3 / (2 + 102 + 25)))
    assert resized["low"] is layers["low"].factors, "not a bit of what is not cut changes"
    assert resized["nothing"].rank == 1 and not resized["nothing"].build_delta().any()
    assert "rank 1 to 3 -> 1: 3 of 4 layers are cut" in str(told) and "70.71%  small (rank 2 -> 1)" in str(told)


def test_directions_that_are_none_cost_nothing() -> None:
    factors = build_diagonal(3, 2)
    twice = Factors(factors.down.repeat(3, 1), factors.up.repeat(1, 3), 6.0)
    resized, told = build_resized(_put(a=twice), rank=None, energy=1.0)
    assert resized["a"].rank == 2 and told.error < 1e-6
    assert torch.allclose(resized["a"].build_delta(), twice.build_delta(), atol=1e-6)


def test_precision_stays_and_its_error_counts() -> None:
    generator = torch.Generator().manual_seed(0)
    factors = Factors(torch.randn(8, 30, generator=generator).bfloat16(), torch.randn(20, 8, generator=generator).bfloat16(), 8.0)
    resized, told = build_resized(_put(a=factors), rank=4, energy=None)
    assert resized["a"].down.dtype == resized["a"].up.dtype == torch.bfloat16
    expected = (factors.build_delta() - resized["a"].build_delta()).norm() / factors.build_delta().norm()
    assert told.error == pytest.approx(float(expected), rel=1e-3)


def test_rows_that_were_nothing_stay_nothing() -> None:
    """As of queries alone, in a layer that holds queries, keys and values."""
    generator = torch.Generator().manual_seed(0)
    up = torch.cat([torch.randn(10, 4, generator=generator), torch.zeros(20, 4)])
    resized, _ = build_resized(_put(a=Factors(torch.randn(4, 10, generator=generator), up, 4.0)), rank=2, energy=None)
    assert not resized["a"].up[10:].any() and resized["a"].up[:10].any()


def test_what_cannot_be_resized() -> None:
    dora = Factors(torch.ones(2, 6), torch.ones(8, 2), 2.0, torch.ones(8))
    with pytest.raises(AdapterError, match="A DoRA cannot be resized"):
        build_resized(_put(a=dora), rank=1, energy=None)
    large = Factors(60000 * torch.eye(2, 6).half(), 60000 * torch.eye(8, 2).half(), 2e6)
    with pytest.raises(AdapterError, match="no room for") as caught:
        build_resized(_put(a=large), rank=1, energy=None)
    assert "float16" in caught.value.got
