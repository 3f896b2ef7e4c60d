"""Epochs in which each picture has its turn exactly as often as it repeats."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import numpy as np
from numpy.typing import NDArray

from weber.data.buckets import Bucket
from weber.data.seeds import draw_order

Indices = NDArray[np.int64]


class Epochs:
    """A pure function of the step: `members` are the pictures of each bucket, each as often as it repeats."""

    def __init__(self, members: Mapping[Bucket, Indices], *, group_size: int, seed: int) -> None:
        self._members, self._seed = members, seed
        self._bounds = list_bounds([len(places) for places in members.values()], group_size)
        self.steps_per_epoch = len(self._bounds)
        self._epoch, self._order, self._turns = 0, *self._draw(0)

    @property
    def group_sizes(self) -> list[int]:
        """How many samples each step of an epoch has."""
        sizes: list[int] = (self._bounds[:, 1] - self._bounds[:, 0]).tolist()
        return sizes

    def list_group(self, step: int) -> list[int]:
        """The pictures of a step."""
        epoch, position = divmod(step, self.steps_per_epoch)
        if epoch != self._epoch:
            self._epoch, self._order, self._turns = epoch, *self._draw(epoch)
        start, stop = self._bounds[self._turns[position]]
        group: list[int] = self._order[start:stop].tolist()
        return group

    def _draw(self, epoch: int) -> tuple[Indices, Indices]:
        """Pictures, shuffled within each bucket; and the order in which the groups have their turn."""
        order = [
            members[draw_order(len(members), self._seed, epoch, "bucket", bucket.width, bucket.height)]
            for bucket, members in self._members.items()
        ]
        turns = draw_order(self.steps_per_epoch, self._seed, epoch, "groups")
        return np.concatenate(order), turns


def list_bounds(bucket_sizes: Sequence[int], group_size: int) -> Indices:
    """Start and stop (G, 2) of every group, the buckets standing one behind the other."""
    bounds, first = [], 0
    for size in bucket_sizes:
        starts = np.arange(0, size, group_size)
        bounds.append(first + np.stack([starts, np.minimum(starts + group_size, size)], axis=1))
        first += size
    return np.concatenate(bounds)
