"""Blocks on processors of AMD, wherever tests run: still the library's, and replays of them still the same bits."""

from __future__ import annotations

import pytest
import torch

from tests.blocks.test_families import Net, check_near
from tests.kernels.narrow import needs_onednn, put_narrow
from tests.memory.conftest import FAMILIES
from weber.blocks import replay
from weber.kernels import product

pytestmark = needs_onednn


@pytest.fixture(params=[True, False], ids=["narrow", "wide"])
def is_narrow(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> bool:
    """Products and attention of any size are those of oneDNN, or none is, whatever processor this is."""
    put_narrow(monkeypatch, is_narrow=request.param, is_any_size=True)
    return bool(request.param)


@pytest.mark.parametrize("learns_all", [False, True], ids=["lora", "full"])
@pytest.mark.parametrize("family", FAMILIES)
def test_blocks(family: str, learns_all: bool, is_narrow: bool, monkeypatch: pytest.MonkeyPatch) -> None:
    net = Net(family) if learns_all else Net(family).put_lora()
    if learns_all:
        net.model.requires_grad_(True)
    inputs, taken = net.draw(), []
    run = product._pack
    monkeypatch.setattr(product, "_pack", lambda factor: taken.append(factor) or run(factor))
    check_near(net, inputs)
    assert bool(taken) == is_narrow
    replayed = net.learn(inputs, is_fused=True)
    monkeypatch.setattr(replay, "_MOST_BYTES", 0)
    plain = net.learn(inputs, is_fused=True)
    assert all(torch.equal(replayed[name], one) for name, one in plain.items())
