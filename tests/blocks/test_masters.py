"""Copies of what adapters learn: as the masters are when a pass begins, whoever has changed them, and however."""

from __future__ import annotations

from collections.abc import Callable

import pytest
import torch
from torch import nn

from tests.blocks.test_families import Net, check_near
from tests.memory.conftest import FAMILIES
from weber.blocks.layer import Layer, Term
from weber.blocks.masters import build_copies, refresh_copies


def _move_by_optimizer(masters: list[nn.Parameter]) -> None:
    for one in masters:
        one.grad = torch.ones_like(one)
    torch.optim.AdamW(masters, lr=0.05, fused=True).step()
    for one in masters:
        one.grad = None


@torch.no_grad()
def _move_in_place(masters: list[nn.Parameter]) -> None:
    torch._foreach_mul_(masters, 1.5)


def _move_data(masters: list[nn.Parameter]) -> None:
    for one in masters:
        one.data = one.data + 0.1


@pytest.mark.parametrize("move", [_move_by_optimizer, _move_in_place, _move_data])
@pytest.mark.parametrize("family", FAMILIES)
def test_the_next_pass_sees_what_was_learned(family: str, move: Callable[[list[nn.Parameter]], None]) -> None:
    net = Net(family).put_lora()
    inputs = net.draw(batch=1)
    before = net.learn(inputs, is_fused=True)["velocity"]
    move([one for one in net.model.parameters() if one.requires_grad])
    assert not torch.allclose(net.learn(inputs, is_fused=True)["velocity"], before, rtol=1e-3)
    check_near(net, inputs)


def test_a_network_that_has_moved_gets_new_copies() -> None:
    net = Net("first").put_lora()
    noisy, t, condition = net.draw(batch=1)
    net.learn((noisy, t, condition), is_fused=True)
    net.model.to("meta")
    there = noisy.to("meta"), t.to("meta"), {name: one.to("meta") for name, one in condition.items()}
    assert net.learn(there, is_fused=True)["velocity"].device.type == "meta" and net.num_others == 0


def _build_layer(num_inputs: int, *, dtype: torch.dtype, num_terms: int = 1) -> Layer:
    terms = tuple(Term(1.0, nn.Parameter(torch.randn(2, num_inputs)), nn.Parameter(torch.randn(5, 2))) for _ in range(num_terms))
    return Layer(5, dtype, (torch.zeros(5, num_inputs, dtype=dtype),), None, terms)


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
def test_neighbours_of_one_width_lie_together_and_nothing_is_copied_twice(dtype: torch.dtype) -> None:
    layers = [_build_layer(8, dtype=dtype), _build_layer(8, dtype=dtype, num_terms=2), _build_layer(4, dtype=dtype)]
    copied, pairs = build_copies(layers)
    downs = [term.copies[0] for layer in copied for term in layer.terms if term.copies is not None]
    assert len(downs) == 4 and len({one.untyped_storage().data_ptr() for one in downs[:3]}) == 1
    assert [one.storage_offset() for one in downs[:3]] == [0, 16, 32]
    alone = copied[2].terms[0]
    assert alone.copies is not None
    if dtype == torch.float32:
        assert len(pairs) == 3 and alone.copies[0] is alone.down and alone.copies[1] is alone.up
    else:
        assert len(pairs) == 8
    for copy, master in pairs:
        master.data.add_(1.0)
        assert not torch.equal(copy, master.to(dtype))
    refresh_copies(pairs)
    assert all(torch.equal(copy, master.to(dtype)) and not copy.requires_grad for copy, master in pairs)
    assert all(layer.weights[0] is old.weights[0] for layer, old in zip(copied, layers, strict=True))


def test_what_nothing_was_put_on_stays_as_it_is() -> None:
    plain = Layer(5, torch.float32, (torch.zeros(5, 4),), None)
    assert build_copies([plain]) == ([plain], [])
    refresh_copies([])
