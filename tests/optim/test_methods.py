"""Updates in pieces: what is done at once changes nothing, and where the state lies neither."""

from __future__ import annotations

import pytest
import torch

from tests.optim.conftest import OWN, build_parameters, build_stepper, is_equal, train
from weber.optim import methods
from weber.optim.states import list_states


@pytest.mark.parametrize("name", OWN)
def test_pieces_change_nothing(name: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """Bit for bit, but for the order of sums (Adafactor) and of random bits (bf16)."""
    whole, pieces = build_parameters(), build_parameters()
    train(build_stepper(whole, name), whole, start=0, stop=5)
    monkeypatch.setattr(methods, "PIECE", 512)
    train(build_stepper(pieces, name), pieces, start=0, stop=5)
    if name in ("adafactor", "adamw_bf16"):
        for (_, one), (_, other), (_, start) in zip(whole, pieces, build_parameters(), strict=True):
            assert (one - other).abs().mean() < 0.01 * (one - start).abs().mean()
    else:
        assert is_equal(whole, pieces)


@pytest.mark.parametrize(("name", "dtype"), [(name, dtype) for name, row in OWN.items() for dtype in row.dtypes])
def test_state_on_the_host_is_state_on_the_device(name: str, dtype: torch.dtype) -> None:
    beside, away = build_parameters(dtype), build_parameters(dtype)
    on_device, on_host = build_stepper(beside, name), build_stepper(away, name, state_on="host")
    train(on_device, beside, start=0, stop=5)
    train(on_host, away, start=0, stop=5)
    assert is_equal(beside, away)
    expected, got = list_states(on_device, beside), list_states(on_host, away)
    assert expected.keys() == got.keys()
    assert all(torch.equal(tensor, got[key]) for key, tensor in expected.items())


def test_a_gradient_in_another_layout_is_the_same_gradient() -> None:
    plain, turned = build_parameters(), build_parameters()
    for parameters in (plain, turned):
        stepper = build_stepper(parameters, "adamw_8bit")
        parameter = parameters[0][1]
        gradient = torch.randn(parameter.shape, generator=torch.Generator().manual_seed(0))
        parameter.grad = gradient if parameters is plain else gradient.T.contiguous().T
        stepper.step()
    assert is_equal(plain, turned)
