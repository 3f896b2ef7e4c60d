"""Decisions left to chance: drawn from a seed, or each of their outcomes told over with its probability."""

from __future__ import annotations

import math
import random
from collections.abc import Callable, Sequence
from typing import Protocol


class Chance(Protocol):
    """Whoever decides. What is asked may depend on what was decided before, and on nothing else."""

    def choose(self, num: int) -> int:
        """One of 0 .. num - 1, each equally likely."""
        ...

    def happens(self, probability: float) -> bool:
        """Yes, with this probability."""
        ...

    def order(self, num: int) -> list[int]:
        """A permutation of 0 .. num - 1, each equally likely."""
        ...


class Drawn:
    """Decisions that are a pure function of a seed. Only `random()` is asked, the one stream that Python keeps equal between versions."""

    def __init__(self, seed: int) -> None:
        self._draw = random.Random(seed).random

    def choose(self, num: int) -> int:
        """See `Chance`."""
        return int(self._draw() * num)

    def happens(self, probability: float) -> bool:
        """See `Chance`."""
        return self._draw() < probability

    def order(self, num: int) -> list[int]:
        """See `Chance`."""
        order = list(range(num))
        for last in range(num - 1, 0, -1):
            other = int(self._draw() * (last + 1))
            order[last], order[other] = order[other], order[last]
        return order


class TooManyError(Exception):
    """There are more outcomes than were to be told over."""


class _Told:
    """Decides as it is told, and the first of all outcomes where it is told nothing; `taken` are the numbers of its decisions, `nums` of
    how many outcomes each was one."""

    def __init__(self, told: Sequence[int], *, most: int) -> None:
        self._told, self._most = told, most
        self.taken: list[int] = []
        self.nums: list[int] = []
        self.probability = 1.0

    def choose(self, num: int) -> int:
        return self._decide(num, lambda _: 1 / num)

    def happens(self, probability: float) -> bool:
        return bool(self._decide(2, lambda number: probability if number else 1 - probability)) if probability < 1 else True

    def order(self, num: int) -> list[int]:
        number = self._decide(math.factorial(min(num, 20)), lambda _: 1 / math.factorial(num))
        left, order = list(range(num)), []
        for size in range(num, 0, -1):
            place, number = divmod(number, math.factorial(size - 1))
            order.append(left.pop(place))
        return order

    def _decide(self, num: int, weigh: Callable[[int], float]) -> int:
        if num > self._most:
            raise TooManyError
        if num == 1:
            return 0
        number = self._told[len(self.taken)] if len(self.taken) < len(self._told) else 0
        self.taken.append(number)
        self.nums.append(num)
        self.probability *= weigh(number)
        return number


def list_outcomes(run: Callable[[Chance], str], *, most: int) -> list[tuple[str, float]] | None:
    """Every way in which `run` may go, with its probability; None where there are more than `most`."""
    outcomes: list[tuple[str, float]] = []
    told: list[int] = []
    while True:
        chance = _Told(told, most=most)
        try:
            text = run(chance)
        except TooManyError:
            return None
        outcomes.append((text, chance.probability))
        if len(outcomes) > most:
            return None
        told, nums = chance.taken, chance.nums
        while told and told[-1] == nums[len(told) - 1] - 1:
            told.pop()
        if not told:
            return outcomes
        told[-1] += 1
