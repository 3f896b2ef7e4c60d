"""The plan of an epoch: everything exactly as often as asked, and a pure function of seed and step."""

from __future__ import annotations

import random
from collections import Counter
from dataclasses import replace
from pathlib import Path

from hypothesis import given
from hypothesis import strategies as st

from weber.data.batches import BatchPlan, Draw
from weber.data.buckets import Bucket
from weber.data.crops import Crop
from weber.data.examples import Example
from weber.data.masks import Mask
from weber.data.pictures import pack_pictures


def _example(number: int, *, side: int, repeats: int, num_captions: int = 3, num_crops: int = 2) -> Example:
    crops = tuple(Crop(64 * side, 64 * side, n, 0, 64, 64) for n in range(num_crops))
    captions = tuple(f"caption {n}" for n in range(num_captions))
    return Example("set", Path(f"{number}.png"), f"{number:032x}", 999, 999, Bucket(64 * side, 64), crops, captions, repeats)


EXAMPLES = st.lists(st.tuples(st.integers(1, 4), st.integers(1, 3)), min_size=1, max_size=40).map(
    lambda rows: [_example(number, side=side, repeats=repeats) for number, (side, repeats) in enumerate(rows)]
)
SIZES = st.integers(1, 5)
SEEDS = st.integers(0, 2**63 - 1)


def _draw_epoch(plan: BatchPlan, epoch: int) -> list[list[list[Draw]]]:
    return [plan.draw_step(epoch * plan.steps_per_epoch + n) for n in range(plan.steps_per_epoch)]


def _list_draws(plan: BatchPlan) -> list[Draw]:
    """Those of the first epoch."""
    return [draw for step in _draw_epoch(plan, 0) for batch in step for draw in batch]


@given(EXAMPLES, SIZES, SIZES, SEEDS, st.integers(0, 3))
def test_an_epoch(examples: list[Example], batch_size: int, accumulation: int, seed: int, epoch: int) -> None:
    plan = BatchPlan(pack_pictures(examples), batch_size=batch_size, accumulation=accumulation, seed=seed)
    steps = _draw_epoch(plan, epoch)
    counts = Counter(draw.example for step in steps for batch in step for draw in batch)
    assert counts == {number: example.repeats for number, example in enumerate(examples)}
    for step in steps:
        group = [draw for batch in step for draw in batch]
        assert len({examples[draw.example].bucket for draw in group}) == 1
        assert [draw.place for draw in group] == list(range(len(group)))
        assert len(step) <= accumulation
        assert all(len(batch) == batch_size for batch in step[:-1]) and 1 <= len(step[-1]) <= batch_size
        for draw in group:
            assert 0 <= draw.caption < 3 and 0 <= draw.crop < 2
    sizes: Counter[Bucket] = Counter()
    for example in examples:
        sizes[example.bucket] += example.repeats
    assert plan.steps_per_epoch == sum(-(-size // (batch_size * accumulation)) for size in sizes.values())


@given(EXAMPLES, SIZES, SIZES, SEEDS, st.randoms(use_true_random=False))
def test_a_step_does_not_depend_on_the_steps_drawn_before(
    examples: list[Example], batch_size: int, accumulation: int, seed: int, order: random.Random
) -> None:
    def build() -> BatchPlan:
        return BatchPlan(pack_pictures(examples), batch_size=batch_size, accumulation=accumulation, seed=seed)

    straight = build()
    expected = [straight.draw_step(step) for step in range(3 * straight.steps_per_epoch)]
    steps = list(range(len(expected)))
    order.shuffle(steps)
    jumping = build()
    assert all(jumping.draw_step(step) == expected[step] for step in steps)
    assert build().draw_step(len(expected) - 1) == expected[-1]


@given(EXAMPLES, SIZES, SIZES, SEEDS)
def test_batch_and_accumulation_draw_the_same(examples: list[Example], batch_size: int, accumulation: int, seed: int) -> None:
    batches = BatchPlan(pack_pictures(examples), batch_size=batch_size, accumulation=accumulation, seed=seed)
    singles = BatchPlan(pack_pictures(examples), batch_size=1, accumulation=batch_size * accumulation, seed=seed)
    assert batches.steps_per_epoch == singles.steps_per_epoch
    for step in range(2 * batches.steps_per_epoch):
        assert sum(batches.draw_step(step), []) == sum(singles.draw_step(step), [])


def test_seed_and_epoch_change_the_order() -> None:
    examples = [_example(number, side=1 + number % 3, repeats=1) for number in range(60)]

    def order(seed: int, epoch: int) -> list[int]:
        steps = _draw_epoch(BatchPlan(pack_pictures(examples), batch_size=2, accumulation=1, seed=seed), epoch)
        return [draw.example for step in steps for batch in step for draw in batch]

    orders = [order(1, 0), order(1, 1), order(2, 0)]
    assert orders[0] != orders[1] != orders[2] != orders[0]
    buckets = [examples[number].bucket for number in orders[0]]
    assert sum(first != second for first, second in zip(buckets, buckets[1:], strict=False)) > 10  # buckets take turns


def test_captions_and_crops_change_with_the_epoch() -> None:
    plan = BatchPlan(pack_pictures([_example(0, side=1, repeats=1)]), batch_size=1, accumulation=1, seed=5)
    draws = [plan.draw_step(step)[0][0] for step in range(300)]
    captions, crops = Counter(draw.caption for draw in draws), Counter(draw.crop for draw in draws)
    assert set(captions) == {0, 1, 2} and min(captions.values()) > 60
    assert set(crops) == {0, 1} and min(crops.values()) > 100
    assert len({(draw.caption, draw.crop) for draw in draws}) == 6


def test_a_new_bucket_leaves_the_order_within_the_others() -> None:
    squares = [_example(number, side=1, repeats=1) for number in range(20)]
    alone = BatchPlan(pack_pictures(squares), batch_size=4, accumulation=1, seed=3)
    mixed = BatchPlan(pack_pictures([*squares, _example(20, side=2, repeats=5)]), batch_size=4, accumulation=1, seed=3)

    def groups(plan: BatchPlan) -> set[tuple[int, ...]]:
        return {tuple(draw.example for batch in step for draw in batch) for step in _draw_epoch(plan, 0)}

    assert groups(alone) < groups(mixed)


def test_draws_are_pinned() -> None:
    """A change here breaks the resume of every run."""
    plan = BatchPlan(pack_pictures(_example(n, side=1 + n % 2, repeats=1 + n % 3) for n in range(7)), batch_size=2, accumulation=2, seed=42)
    drawn = [[(draw.example, draw.caption, draw.crop) for batch in plan.draw_step(step) for draw in batch] for step in (0, 5)]
    assert drawn == [[(4, 2, 0), (0, 0, 0), (6, 0, 0), (2, 2, 0)], [(3, 2, 0), (5, 2, 1)]]


@given(SEEDS)
def test_every_mask_is_drawn_and_changes_nothing_else(seed: int) -> None:
    plain = [_example(number, side=1, repeats=4) for number in range(8)]
    masked = [replace(example, masks=tuple(Mask(None, f"{n}") for n in range(3))) for example in plain]
    draws, others = (
        _list_draws(BatchPlan(pack_pictures(examples), batch_size=2, accumulation=1, seed=seed))
        for examples in (masked, plain)
    )
    assert [replace(draw, mask=0) for draw in draws] == others
    assert {draw.mask for draw in draws} == {0, 1, 2}
    assert {draw.mask for draw in others} == {0}


def _count_dropped(examples: list[Example], seed: int) -> list[bool]:
    plan = BatchPlan(pack_pictures(examples), batch_size=4, accumulation=1, seed=seed)
    return [draw.caption is None for step in range(2 * plan.steps_per_epoch) for batch in plan.draw_step(step) for draw in batch]


def test_captions_are_dropped_as_often_as_asked_and_nothing_else_changes() -> None:
    plain = [_example(number, side=1, repeats=500) for number in range(4)]
    for share in (0.1, 0.5):
        dropped = _count_dropped([replace(example, caption_dropout=share) for example in plain], 3)
        assert abs(sum(dropped) / len(dropped) - share) < 4 * (share * (1 - share) / len(dropped)) ** 0.5
        assert dropped == _count_dropped([replace(example, caption_dropout=share) for example in plain], 3)
        assert dropped != _count_dropped([replace(example, caption_dropout=share) for example in plain], 4)
    assert not any(_count_dropped(plain, 3))
    assert all(_count_dropped([replace(example, caption_dropout=1.0) for example in plain], 3))
    # a higher share drops the same and more
    low, high = (_count_dropped([replace(example, caption_dropout=share) for example in plain], 3) for share in (0.1, 0.5))
    assert all(more for less, more in zip(low, high, strict=True) if less)
    mixed = [*plain[:2], *(replace(example, caption_dropout=0.5) for example in plain[2:])]
    draws = _list_draws(BatchPlan(pack_pictures(mixed), batch_size=4, accumulation=1, seed=3))
    others = _list_draws(BatchPlan(pack_pictures(plain), batch_size=4, accumulation=1, seed=3))
    assert {draw.example for draw in draws if draw.caption is None} == {2, 3}
    assert all(one == other or one == replace(other, caption=None) for one, other in zip(draws, others, strict=True))


def test_the_caption_that_was_drawn() -> None:
    example = replace(_example(0, side=1, repeats=1), caption_dropout=0.1)
    assert [example.caption(number) for number in (0, 2, None)] == ["caption 0", "caption 2", ""]
    assert list(example.list_captions()) == ["caption 0", "caption 1", "caption 2", ""]
    assert list(replace(example, caption_dropout=0.0).list_captions()) == ["caption 0", "caption 1", "caption 2"]
    assert list(replace(example, caption_dropout=1.0).list_captions()) == [""]


@given(EXAMPLES, SIZES, SIZES, SEEDS, st.integers(1, 9))
def test_the_order_is_the_same_in_any_number_of_processes(
    examples: list[Example], batch_size: int, accumulation: int, seed: int, num_processes: int
) -> None:
    plan = BatchPlan(pack_pictures(examples), batch_size=batch_size, accumulation=accumulation, seed=seed)
    for step in range(plan.steps_per_epoch):
        alone, dealt = plan.draw_step(step), plan.draw_step(step, num_processes)
        assert [draw for batch in dealt for draw in batch] == [draw for batch in alone for draw in batch]
        if accumulation >= num_processes:
            assert dealt == alone, "whole micro-batches, so that their bits are the same"
        if plan.group_size >= num_processes and sum(map(len, alone)) == plan.group_size:
            assert len(dealt) >= min(num_processes, -(-plan.group_size // -(-plan.group_size // num_processes)))
