"""Changes of several layers as one, and back: nothing is lost, whatever the ranks, scales and precisions."""

from __future__ import annotations

from collections.abc import Sequence

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from weber.adapters.factors import Factors
from weber.adapters.fuse import build_fused, build_parts

INPUTS, UNIT = 6, 3

ranks = st.lists(st.none() | st.integers(1, 4), min_size=1, max_size=4).filter(lambda drawn: any(drawn))
rows = st.lists(st.integers(1, 4), min_size=4, max_size=4)
seeds = st.integers(0, 2**32 - 1)


def _draw(drawn: Sequence[int | None], num_rows: Sequence[int], *, alpha: float | None = None, seed: int = 0) -> list[Factors | None]:
    generator = torch.Generator().manual_seed(seed)
    return [
        None
        if rank is None
        else Factors(
            torch.randn(rank, INPUTS, generator=generator),
            torch.randn(UNIT * part, rank, generator=generator),
            float(torch.rand((), generator=generator)) if alpha is None else alpha * rank,
        )
        for rank, part in zip(drawn, num_rows, strict=False)
    ]


def _split(num_rows: Sequence[int], num: int) -> list[int]:
    return [UNIT * part for part in num_rows[:num]]


@given(ranks, rows, seeds, st.sampled_from([1.0, 0.5, 4.0, 1.5, 0.375]))
def test_what_was_fused_comes_back_as_it_was(drawn: list[int | None], num_rows: list[int], seed: int, scale: float) -> None:
    parts = _draw(drawn, num_rows, alpha=scale, seed=seed)
    split = _split(num_rows, len(parts))
    fused = build_fused(parts, split)
    assert fused.rank == sum(part.rank for part in parts if part is not None)
    assert fused.scale == scale
    back = build_parts(fused, split)
    assert [part is None for part in back] == [part is None for part in parts]
    for part, old in zip(back, parts, strict=True):
        if part is not None and old is not None:
            assert torch.equal(part.down, old.down)
            assert torch.equal(part.up, old.up)
            assert part.alpha == old.alpha


@given(ranks, rows, seeds, st.booleans())
def test_the_change_keeps_its_bits_whatever_the_alphas(drawn: list[int | None], num_rows: list[int], seed: int, swapped: bool) -> None:
    parts = _draw(drawn, num_rows, seed=seed)
    split = _split(num_rows, len(parts))
    if sum(split) % 2:
        swapped = False
    fused = build_fused(parts, split, swapped=swapped)
    assert torch.tensor(fused.alpha).item() == fused.alpha, "a file holds alpha in fp32"
    for part, old in zip(build_parts(fused, split, swapped=swapped), parts, strict=True):
        assert (part is None) == (old is None)
        if part is not None and old is not None:
            assert torch.equal(part.build_delta(), old.build_delta())


@given(ranks, rows, seeds)
def test_the_fused_change_is_the_parts_one_below_the_other(drawn: list[int | None], num_rows: list[int], seed: int) -> None:
    parts = _draw(drawn, num_rows, seed=seed)
    split = _split(num_rows, len(parts))
    deltas = [torch.zeros(size, INPUTS) if part is None else part.build_delta() for part, size in zip(parts, split, strict=True)]
    assert torch.allclose(build_fused(parts, split).build_delta(), torch.cat(deltas), atol=1e-6)


@given(rows, seeds)
def test_a_change_that_was_trained_as_a_whole_is_split_by_rows(num_rows: list[int], seed: int) -> None:
    split = _split(num_rows, 4)
    generator = torch.Generator().manual_seed(seed)
    whole = Factors(torch.randn(2, INPUTS, generator=generator), torch.randn(sum(split), 2, generator=generator), 3.0)
    parts = build_parts(whole, split)
    assert all(part is not None and part.rank == 2 and part.alpha == 3.0 for part in parts)
    assert torch.equal(torch.cat([part.build_delta() for part in parts if part is not None]), whole.build_delta())


def test_shift_and_scale_change_places() -> None:
    factors = Factors(torch.eye(1), torch.tensor([[1.0], [2.0], [3.0], [4.0]]), 1.0)
    fused = build_fused([factors], [4], swapped=True)
    assert fused.up.flatten().tolist() == [3, 4, 1, 2]
    back = build_parts(fused, [4], swapped=True)[0]
    assert back is not None
    assert torch.equal(back.up, factors.up)


def test_layers_that_were_never_trained_are_kept_only_where_all_of_them_are() -> None:
    untrained = Factors(torch.ones(2, INPUTS), torch.zeros(UNIT, 2), 2.0)
    trained = Factors(torch.ones(2, INPUTS), torch.ones(UNIT, 2), 2.0)
    for before, ranks_after in (([untrained, trained], [None, 2]), ([untrained, untrained], [1, 1])):
        after = build_parts(build_fused(before, [UNIT] * 2), [UNIT] * 2)
        assert [None if part is None else part.rank for part in after] == ranks_after


@pytest.mark.parametrize(("other", "fused"), [(torch.float32, torch.float32), (torch.bfloat16, torch.bfloat16)])
def test_precisions_meet(other: torch.dtype, fused: torch.dtype) -> None:
    parts = [Factors(torch.ones(1, 2).to(dtype), torch.ones(1, 1).to(dtype), 1.0) for dtype in (torch.bfloat16, other)]
    assert build_fused(parts, [1, 1]).up.dtype == build_fused(parts, [1, 1]).down.dtype == fused
