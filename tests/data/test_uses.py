"""When and how often sets have their turn: shares are kept, steps do not depend on those before, and all else stays."""

from __future__ import annotations

import random
from collections import Counter
from pathlib import Path

from hypothesis import given, settings
from hypothesis import strategies as st

from weber.data.batches import BatchPlan
from weber.data.buckets import Bucket
from weber.data.crops import Crop
from weber.data.examples import Example
from weber.data.pictures import Pictures, pack_pictures
from weber.data.uses import NO_USES, Use, Uses

SHARES = st.floats(0.05, 4)


def _example(set_name: str, number: int, *, side: int, repeats: int = 1) -> Example:
    crop = Crop(64 * side, 64, 0, 0, 64 * side, 64)
    return Example(
        set_name, Path(f"{set_name}{number}.png"), f"{number:032x}", 999, 999, Bucket(64 * side, 64), (crop,), ("a", "b"), repeats
    )


def _build(sizes: dict[str, int], *, repeats: int = 1, num_sides: int = 3) -> Pictures:
    return pack_pictures(
        _example(name, number, side=1 + number % num_sides, repeats=repeats) for name, size in sizes.items() for number in range(size)
    )


def _plan(pictures: Pictures, uses: Uses = NO_USES, *, batch_size: int = 2, seed: int = 5) -> BatchPlan:
    return BatchPlan(pictures, batch_size=batch_size, accumulation=2, seed=seed, uses=uses)


def _draw(plan: BatchPlan, start: int, stop: int) -> list[int]:
    return [draw.example for step in range(start, stop) for batch in plan.draw_step(step) for draw in batch]


@settings(max_examples=12)
@given(st.integers(1, 40), st.integers(1, 40), SHARES, SHARES, st.integers(1, 3))
def test_shares_are_kept_and_no_picture_is_preferred(first: int, second: int, one: float, other: float, repeats: int) -> None:
    pictures = _build({"a": first, "b": second}, repeats=repeats)
    plan = _plan(pictures, {"a": Use(one), "b": Use(other)})
    num_steps, drawn = 0, list[int]()
    while len(drawn) < 3000:
        drawn += _draw(plan, num_steps, num_steps + 100)
        num_steps += 100
    counts = Counter(drawn)
    sizes = first * repeats * one, second * repeats * other
    share = sum(count for place, count in counts.items() if place < first) / len(drawn)
    assert abs(share - sizes[0] / sum(sizes)) < 0.05
    for places in (range(first), range(first, first + second)):
        for side in range(3):  # in each bucket each picture as often as any other, but for the turn that has begun
            cell = [counts[place] for place in places if pictures[place].bucket.width == 64 * (1 + side)]
            assert not cell or max(cell) - min(cell) <= 2 * repeats + 2


def test_weights_over_10000_draws() -> None:
    plan = _plan(_build({"a": 300, "b": 10}), {"a": Use(0.5), "b": Use(15.0)})
    drawn = _draw(plan, 0, 3000)[:10000]
    assert abs(sum(place < 300 for place in drawn) / len(drawn) - 0.5) < 0.01
    assert len({place for place in drawn if place < 300}) == 300


@settings(max_examples=20)
@given(st.integers(1, 20), st.integers(1, 20), SHARES, st.integers(0, 30), st.integers(1, 40), st.randoms(use_true_random=False))
def test_a_step_does_not_depend_on_the_steps_drawn_before(
    first: int, second: int, share: float, start: int, length: int, order: random.Random
) -> None:
    pictures = _build({"a": first, "b": second})
    uses = {"a": Use(share), "b": Use(1.0, start, start + length)}
    straight = _plan(pictures, uses)
    expected = [straight.draw_step(step) for step in range(60)]
    steps = list(range(60))
    order.shuffle(steps)
    jumping = _plan(pictures, uses)
    assert all(jumping.draw_step(step) == expected[step] for step in steps)
    for step, batches in enumerate(expected):
        group = [draw for batch in batches for draw in batch]
        assert 1 <= len(group) <= 4 and len({pictures[draw.example].bucket for draw in group}) == 1
        if not start <= step < start + length:
            assert all(draw.example < first for draw in group)


def test_a_set_that_starts_later_leaves_the_steps_before_it_as_they_were() -> None:
    both, alone = _build({"a": 9, "b": 6}), _build({"a": 9})
    plan = _plan(both, {"b": Use(1.0, 12)})
    assert _draw(plan, 0, 12) == _draw(_plan(alone), 0, 12)
    assert plan.steps_per_epoch == _plan(both).steps_per_epoch
    epoch = Counter(_draw(plan, 12, 12 + plan.steps_per_epoch))
    assert epoch == dict.fromkeys(range(15), 1)


def test_what_says_nothing_changes_nothing() -> None:
    pictures = _build({"a": 9, "b": 6}, repeats=2)
    assert _draw(_plan(pictures, {"a": Use(), "b": Use()}), 0, 30) == _draw(_plan(pictures), 0, 30)


def test_rounds_are_pinned() -> None:
    """A change here breaks the resume of every run with shares."""
    plan = _plan(_build({"a": 5, "b": 3}), {"a": Use(0.5), "b": Use(1.5)})
    assert [_draw(plan, step, step + 1) for step in (0, 1, 7, 100)] == [[7, 2, 7], [5, 5, 0], [7, 2, 7], [6, 4]]
