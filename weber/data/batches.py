"""Which pictures each step sees: a pure function of the examples, the sizes, the seed and the step."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from weber.data.pictures import Pictures
from weber.data.seeds import draw_choice, draw_order, draw_uniform, draw_weighted

_Indices = NDArray[np.int64]


@dataclass(frozen=True, slots=True)
class Draw:
    """One sample of a step: indices of the example, and of its caption (None: the empty one in its place), crop and mask.

    `place` is the index in the step's group.
    """

    example: int
    place: int
    caption: int | None
    crop: int
    mask: int = 0


class BatchPlan:
    """Every step is a group of `batch_size * accumulation` samples of one bucket, from any sets, cut into micro-batches.

    In an epoch each example appears exactly `repeats` times; the last group of a bucket may be smaller. Only the order of the
    current epoch is kept, a few numbers per sample.
    """

    def __init__(self, pictures: Pictures, *, batch_size: int, accumulation: int, seed: int) -> None:
        assert len(pictures) and batch_size >= 1 and accumulation >= 1
        self._examples, self._batch_size, self._seed = pictures, batch_size, seed
        self._members = pictures.list_members()
        self._bounds = _list_bounds([len(members) for members in self._members.values()], batch_size * accumulation)
        self.steps_per_epoch = len(self._bounds)
        self._epoch, self._order, self._turns = 0, *self._draw_epoch(0)

    @property
    def group_sizes(self) -> list[int]:
        """How many samples each step of an epoch has, at most `batch_size * accumulation`."""
        sizes: list[int] = (self._bounds[:, 1] - self._bounds[:, 0]).tolist()
        return sizes

    def draw_step(self, step: int) -> list[list[Draw]]:
        """The micro-batches of a step, counted from 0."""
        epoch, position = divmod(step, self.steps_per_epoch)
        if epoch != self._epoch:
            self._epoch, self._order, self._turns = epoch, *self._draw_epoch(epoch)
        start, stop = self._bounds[self._turns[position]]
        draws = [self._draw(example, step, place) for place, example in enumerate(self._order[start:stop].tolist())]
        return [draws[start : start + self._batch_size] for start in range(0, len(draws), self._batch_size)]

    def _draw(self, example: int, step: int, place: int) -> Draw:
        chosen = self._examples[example]
        parts, weights = (self._seed, step, place, "caption"), chosen.caption_weights
        caption: int | None = draw_weighted(weights, *parts) if weights else draw_choice(len(chosen.captions), *parts)
        if draw_uniform(self._seed, step, place, "caption_dropout") < chosen.caption_dropout:
            caption = None
        crop = draw_choice(len(chosen.crops), self._seed, step, place, "crop")
        mask = draw_choice(len(chosen.masks), self._seed, step, place, "mask") if chosen.masks else 0
        return Draw(example, place, caption, crop, mask)

    def _draw_epoch(self, epoch: int) -> tuple[_Indices, _Indices]:
        """Examples, shuffled within each bucket; and the order in which the groups have their turn."""
        order = [
            members[draw_order(len(members), self._seed, epoch, "bucket", bucket.width, bucket.height)]
            for bucket, members in self._members.items()
        ]
        turns = draw_order(self.steps_per_epoch, self._seed, epoch, "groups")
        return np.concatenate(order), turns


def _list_bounds(bucket_sizes: Sequence[int], group_size: int) -> _Indices:
    """Start and stop (G, 2) of every group, the buckets standing one behind the other."""
    bounds, first = [], 0
    for size in bucket_sizes:
        starts = np.arange(0, size, group_size)
        bounds.append(first + np.stack([starts, np.minimum(starts + group_size, size)], axis=1))
        first += size
    return np.concatenate(bounds)
