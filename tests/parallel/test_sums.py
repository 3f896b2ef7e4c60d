"""Sums that have an order, and micro-batches that are dealt out: the same on any number of processes."""

from __future__ import annotations

import torch
from hypothesis import given
from hypothesis import strategies as st

from weber.parallel.sums import Total


@given(st.lists(st.integers(1, 3), min_size=1, max_size=9), st.integers(1, 5), st.integers(0, 2**31))
def test_a_total_is_the_sum_in_the_order_of_one_process(parts: list[int], size: int, seed: int) -> None:
    """`parts`: how many pieces each micro-batch falls into."""
    generator = torch.Generator().manual_seed(seed)

    def draw() -> torch.Tensor:
        return torch.randn(4, generator=generator) * 10.0 ** int(torch.randint(-4, 5, (), generator=generator))

    pieces = [[draw() for _ in range(num)] for num in parts]
    alone = torch.full((4,), -0.0)
    for piece in (one for own in pieces for one in own):
        alone = alone + piece
    total = Total()
    for first in range(0, len(pieces), size):
        dealt = pieces[first : first + size]
        most = max(map(len, dealt))
        for turn in range(most):
            there = [(rank, own[turn]) for rank, own in enumerate(dealt) if turn < len(own)]
            total.take(there, turn=turn, is_last=turn == most - 1)
    assert total.tensor is not None and torch.equal(total.tensor, alone)


def test_what_is_added_is_not_what_was_sent() -> None:
    """Memory that comes from another process may be used again."""
    total, piece = Total(), torch.ones(3)
    total.take([(0, piece)], turn=0, is_last=True)
    total.take([(0, torch.ones(3))], turn=0, is_last=True)
    assert piece.tolist() == [1, 1, 1] and total.tensor is not None and total.tensor.tolist() == [2, 2, 2]
