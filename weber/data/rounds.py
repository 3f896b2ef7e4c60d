"""Rounds in which sets have their turn as often as their shares say: an epoch in which a picture may come up less than once, or one time
and a half.

The pictures of one set in one bucket are a cell. Its pictures stand in an endless row, all of them in a drawn order, again and again in
another one. Round r has those from floor(r x) to floor((r + 1) x) of it, with x uses per round: so each has its turn as often as any other,
and what comes in a round is known without those before it.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from weber.data.buckets import Bucket
from weber.data.epochs import Indices, list_bounds
from weber.data.seeds import draw_order, draw_uniform

_NUM_AT_ONCE = 1024


@dataclass(frozen=True)
class Cell:
    """The places of a set's pictures in one bucket, and how many uses of them a round has."""

    set_name: str
    bucket: Bucket
    places: Indices
    uses: float


class Rounds:
    """A pure function of the step. The number of steps of a round differs a little; `steps_per_epoch` is that of the mean."""

    def __init__(self, cells: Sequence[Cell], *, group_size: int, seed: int) -> None:
        self._cells, self._group_size, self._seed = sorted(cells, key=lambda one: (one.bucket, one.set_name)), group_size, seed
        self._buckets = sorted({one.bucket for one in cells})
        self._uses = np.array([one.uses for one in self._cells])
        self._offsets = np.array([draw_uniform(seed, "cell", *_name(one)) for one in self._cells])
        self._firsts = np.array([[one.bucket for one in self._cells].index(bucket) for bucket in self._buckets])
        self._ends = np.zeros(0, np.int64)
        """Number of steps until the end of each round that is known so far."""
        self._round, (self._order, self._bounds) = 0, self._draw(0)

    @property
    def steps_per_epoch(self) -> int:
        """Of a round on average."""
        sums = np.add.reduceat(self._uses, self._firsts)
        return max(1, int(np.ceil(sums / self._group_size).sum()))

    @property
    def group_sizes(self) -> list[int]:
        """How many samples each step of the first round that has any has."""
        number = self._find(0)[0]
        _, bounds = self._draw(number)
        sizes: list[int] = (bounds[:, 1] - bounds[:, 0]).tolist()
        return sizes

    def list_group(self, step: int) -> list[int]:
        """The pictures of a step."""
        number, position = self._find(step)
        if number != self._round:
            self._round, (self._order, self._bounds) = number, self._draw(number)
        turns = draw_order(len(self._bounds), self._seed, number, "groups")
        start, stop = self._bounds[turns[position]]
        group: list[int] = self._order[start:stop].tolist()
        return group

    def _find(self, step: int) -> tuple[int, int]:
        """The round of a step, and the step's position in it."""
        while not len(self._ends) or self._ends[-1] <= step:
            rounds = np.arange(len(self._ends), len(self._ends) + _NUM_AT_ONCE)
            sizes = np.add.reduceat(self._count(rounds + 1) - self._count(rounds), self._firsts, axis=1)
            steps = -(-sizes // self._group_size).sum(axis=1)
            self._ends = np.concatenate([self._ends, (self._ends[-1] if len(self._ends) else 0) + np.cumsum(steps)])
        number = int(np.searchsorted(self._ends, step, side="right"))
        return number, step - (int(self._ends[number - 1]) if number else 0)

    def _count(self, rounds: Indices) -> Indices:
        """Uses of each cell (R, C) before those rounds."""
        counts: Indices = np.floor(rounds[:, None] * self._uses + self._offsets).astype(np.int64)
        return counts

    def _draw(self, number: int) -> tuple[Indices, Indices]:
        """The pictures of a round, shuffled within each bucket, and the bounds of its groups."""
        first, stop = self._count(np.array([number, number + 1]))
        found: dict[Bucket, list[Indices]] = {bucket: [] for bucket in self._buckets}
        for cell, low, high in zip(self._cells, first.tolist(), stop.tolist(), strict=True):
            found[cell.bucket] += self._list_uses(cell, low, high)
        order = []
        for bucket, lists in found.items():
            places = np.concatenate([*lists, np.zeros(0, np.int64)])
            order.append(places[draw_order(len(places), self._seed, number, "bucket", bucket.width, bucket.height)])
        return np.concatenate(order), list_bounds([len(places) for places in order], self._group_size)

    def _list_uses(self, cell: Cell, low: int, high: int) -> list[Indices]:
        """The uses from number `low` to before `high` of the endless row of a cell."""
        size, found = len(cell.places), []
        for turn in range(low // size, -(-high // size)):
            order = cell.places[draw_order(size, self._seed, "cell", *_name(cell), turn)]
            found.append(order[max(0, low - turn * size) : high - turn * size])
        return found


def _name(cell: Cell) -> tuple[str, int, int]:
    return cell.set_name, cell.bucket.width, cell.bucket.height
