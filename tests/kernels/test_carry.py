"""Arguments of kernels keep their strides, their offsets and what they share on the way to a GPU."""

from __future__ import annotations

import torch

from tests.kernels.compiled import carry


def test_views_stay_views() -> None:
    whole = torch.arange(24.0).view(2, 3, 4)
    part, turned, complex_part = whole[:, 1:, ::2], whole.transpose(0, 2), torch.view_as_complex(whole.view(2, 3, 2, 2))
    moved, [turn, other], number = carry((part, [turned, complex_part], 7), "cpu", storages={})
    assert number == 7 and torch.equal(moved, part) and torch.equal(turn, turned) and torch.equal(other, complex_part)
    assert (moved.stride(), moved.storage_offset(), turn.stride()) == (part.stride(), part.storage_offset(), turned.stride())
    moved.fill_(-1.0)
    assert moved.data_ptr() != part.data_ptr() and torch.equal(turn[::2, 1:, 0], moved[0].t()), "they share memory there"
    assert part.min() >= 0
