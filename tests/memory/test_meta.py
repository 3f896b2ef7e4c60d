"""Attention on the meta device: what it saves and how much it computes is what a GPU's would."""

from __future__ import annotations

import pytest
import torch
from torch import Tensor
from torch.nn import functional
from torch.utils.checkpoint import checkpoint
from torch.utils.flop_counter import FlopCounterMode

from weber.memory.meta import FlashOnMeta
from weber.memory.simulate import Meter

HEADS, TOKENS, WIDTH = 3, 512, 64
NUM_FLOPS = 4 * HEADS * TOKENS**2 * WIDTH


def _build(device: str = "meta") -> Tensor:
    return torch.ones(1, HEADS, TOKENS, WIDTH, device=device, dtype=torch.bfloat16, requires_grad=True)


@pytest.mark.parametrize("masked", [False, True])
def test_work_and_bytes(masked: bool) -> None:
    query, key, value = _build(), _build(), _build()
    mask = torch.zeros(1, 1, 1, TOKENS, device="meta", dtype=torch.bfloat16) if masked else None
    with FlashOnMeta(), FlopCounterMode(display=False) as counter, Meter(grain_bytes=1) as meter:
        output = functional.scaled_dot_product_attention(query, key, value, attn_mask=mask)
        assert counter.get_total_flops() == NUM_FLOPS
        kept = meter.read_stretch().left_bytes
        output.sum().backward()
    assert output.nbytes + 4 * HEADS * TOKENS <= kept < output.nbytes + 4 * HEADS * TOKENS + 100
    assert counter.get_total_flops() == 3.5 * NUM_FLOPS


def test_checkpoints_too() -> None:
    query = _build()
    with FlashOnMeta(), FlopCounterMode(display=False) as counter:
        checkpoint(functional.scaled_dot_product_attention, query, query, query, use_reentrant=False).sum().backward()
    assert counter.get_total_flops() == 4.5 * NUM_FLOPS


def test_real_tensors_are_left_alone() -> None:
    query = _build("cpu")
    expected = functional.scaled_dot_product_attention(query, query, query)
    with FlashOnMeta():
        found = functional.scaled_dot_product_attention(query, query, query)
        assert torch.equal(found, expected)
        assert type(found.grad_fn) is type(expected.grad_fn)
        found.sum().backward()
    gradient, query.grad = query.grad, None
    expected.sum().backward()
    assert gradient is not None and query.grad is not None and torch.equal(gradient, query.grad)
