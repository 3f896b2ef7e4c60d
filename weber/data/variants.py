"""What a picture's captions become: all outcomes of its steps where they are few, else some of them, drawn once and kept.

A pure function of the captions, the steps, the seed and the picture's name below its set: of no other picture, and of no order.
"""

from __future__ import annotations

from bisect import bisect_right
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from functools import partial
from itertools import accumulate

from weber.data.caption_steps import Steps
from weber.data.chances import Drawn, list_outcomes
from weber.data.seeds import build_seed, draw_uniform
from weber.errors import DataError

DEFAULT_MOST = 8
"""Variants of a picture where nothing is said; more, if it has more captions of its own."""

_EMPTY = "caption is empty after its steps"
_SHOWN = 60
_GOLDEN = (5**0.5 - 1) / 2
"""Multiples of it fill a circle evenly, however many they are."""


@dataclass(frozen=True, slots=True)
class Variants:
    """The texts that are encoded for a picture, and how likely each is; no weights: all are as likely. `is_whole`: they are all that the
    steps can make of its captions, with the probabilities that those have."""

    texts: tuple[str, ...]
    weights: tuple[float, ...] = ()
    is_whole: bool = True


def build_variants(
    texts: Sequence[str], weights: Sequence[float], *, steps: Steps | None, seed: int, name: str, fallback: str | None = None
) -> Variants:
    """The variants of the captions of a picture; `weights` say how likely each of these is, none: all are as likely. `fallback` takes the
    place of captions of which the steps leave nothing.

    DataError with a one-line reason for captions of which the steps leave nothing, and for those that a step cannot take.
    """
    if steps is None:
        return Variants(tuple(texts), tuple(weights) if len(set(weights)) > 1 else ())
    shares = _scale(weights or [1.0] * len(texts))
    most = max(DEFAULT_MOST, len(texts)) if steps.most is None else steps.most
    outcomes = _list_all(texts, shares, steps, most=most)
    is_whole = outcomes is not None
    if outcomes is None:
        outcomes = _draw_some(texts, shares, steps, seed=seed, name=name, most=most)
    kept = _leave_out_empty(outcomes, texts)
    if not kept and fallback is not None and [*texts] != [fallback]:
        return build_variants([fallback], (), steps=steps, seed=seed, name=name)
    if not kept:
        longest = max(texts, key=len)
        raise DataError(f'{_EMPTY}: it was "{longest if len(longest) <= _SHOWN else f"{longest[:_SHOWN]} ..."}"')
    merged: dict[str, float] = {}
    for _, text, share in kept:
        merged[text] = merged.get(text, 0.0) + share
    scaled = _scale(list(merged.values()))
    is_even = max(scaled) - min(scaled) < 1e-9
    return Variants(tuple(merged), () if is_even else tuple(scaled), is_whole)


_Outcome = tuple[int, str, float]
"""Which of the captions it was, what has become of it, and how likely that is."""


def _list_all(texts: Sequence[str], shares: Sequence[float], steps: Steps, *, most: int) -> list[_Outcome] | None:
    """Every outcome of every caption; None where they are more than `most`."""
    found: list[_Outcome] = []
    for number, (text, share) in enumerate(zip(texts, shares, strict=True)):
        limit = most - len(found) if steps.is_random else 1
        outcomes = list_outcomes(partial(steps.run, text), most=limit) if limit > 0 else None
        if outcomes is None:
            return None
        found += [(number, outcome, share * probability) for outcome, probability in outcomes]
    return found


def _draw_some(
    texts: Sequence[str], shares: Sequence[float], steps: Steps, *, seed: int, name: str, most: int
) -> list[_Outcome]:
    """`most` outcomes. Each caption has as many of them as its weight says, but one at least where there are so many, and its own weight
    in all; which it gets is drawn from its own number, so that what becomes of one caption does not depend on the others."""
    counts = _count_draws(shares, most=most, seed=seed, name=name)
    is_exact = all(counts)
    drawn: list[_Outcome] = []
    for number, (text, share, count) in enumerate(zip(texts, shares, counts, strict=True)):
        for turn in range(count):
            outcome = steps.run(text, Drawn(build_seed(seed, "caption steps", name, number, turn)))
            drawn.append((number, outcome, share / count if is_exact else 1 / most))
    return drawn


def _count_draws(shares: Sequence[float], *, most: int, seed: int, name: str) -> list[int]:
    """How many draws each caption gets: points that fill the line of their weights evenly, from a drawn place on. More draws only add."""
    counts = [1 if most >= len(shares) else 0] * len(shares)
    start, bounds = draw_uniform(seed, "caption counts", name), list(accumulate(shares))
    for number in range(most - sum(counts)):
        counts[min(bisect_right(bounds, (start + number * _GOLDEN) % 1.0), len(shares) - 1)] += 1
    return counts


def _leave_out_empty(outcomes: Iterable[_Outcome], texts: Sequence[str]) -> list[_Outcome]:
    """Without captions of which nothing is left in any outcome; a caption that was empty from the start may stay so."""
    found = list(outcomes)
    saying = {number for number, text, _ in found if text} | {number for number, text in enumerate(texts) if not text.strip()}
    return [one for one in found if one[0] in saying]


def _scale(weights: Sequence[float]) -> list[float]:
    total = sum(weights)
    return [weight / total for weight in weights]
