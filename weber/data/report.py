"""Numbers about a dataset for a person."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from weber.data.buckets import Bucket
from weber.data.dataset import Dataset
from weber.data.packing import ROWS
from weber.data.pictures import Part


@dataclass(frozen=True, slots=True)
class BucketCount:
    """What one bucket of one set holds. `mean_cut_fraction`: share of a picture's pixels cut away, mean over the pictures."""

    set_name: str
    bucket: Bucket
    num_pictures: int
    num_with_repeats: int
    num_upscaled: int
    mean_cut_fraction: float


def list_bucket_counts(dataset: Dataset) -> list[BucketCount]:
    """One row per set and bucket, in the order of the sets and then by size."""
    return [row for part in dataset.examples.parts for row in _list_rows(part)]


@dataclass(frozen=True, slots=True)
class Change:
    """What becomes of one picture of (width, height): `cut` is the share that its first window cuts away, `scale` the size of a side that
    was 1 before."""

    name: str
    size: tuple[int, int]
    bucket: Bucket
    cut: float
    scale: float


@dataclass(frozen=True)
class Changes:
    """Of a set: how many pictures are cut and scaled by how much, between `CUTS` and `SCALES`, and those that change most."""

    set_name: str
    cuts: list[int]
    scales: list[int]
    most_cut: list[Change]
    most_enlarged: list[Change]


CUTS = (0.0, 0.02, 0.05, 0.1, 0.2, 0.3)
"""Shares: how many pictures are cut by at most each, and how many by more than the last."""

SCALES = (0.25, 0.5, 0.75, 0.999, 1.001, 1.25, 1.5)
"""Likewise; between 0.999 and 1.001 a picture keeps its size."""


def count_changes(part: Part, *, most: int) -> Changes:
    """See `Changes`; `most` of each kind are named."""
    sizes, firsts, cut = part.array("size").astype(np.int64), _list_firsts(part), measure_cuts(part)
    scale = np.sqrt(firsts[:, 0] * firsts[:, 1] / (sizes[:, 0] * sizes[:, 1]))

    def name(places: NDArray[np.int64]) -> list[Change]:
        return [
            Change(
                part.paths[place],
                (int(sizes[place, 0]), int(sizes[place, 1])),
                Bucket(int(firsts[place, 4]), int(firsts[place, 5])),
                float(cut[place]),
                float(scale[place]),
            )
            for place in places.tolist()
        ]

    cuts = np.bincount(np.searchsorted(CUTS, np.round(cut, 9)), minlength=len(CUTS) + 1)
    scales = np.bincount(np.searchsorted(SCALES, scale), minlength=len(SCALES) + 1)
    worst = [np.lexsort((np.arange(len(cut)), -numbers))[:most] for numbers in (cut, scale)]
    cut_most, enlarged_most = worst[0][cut[worst[0]] > CUTS[1]], worst[1][scale[worst[1]] > SCALES[4]]
    return Changes(part.shared.set_name, cuts.tolist(), scales.tolist(), name(cut_most), name(enlarged_most))


def measure_cuts(part: Part) -> NDArray[np.float64]:
    """Share of each picture (N,) that its first window cuts away."""
    firsts = _list_firsts(part)
    cuts: NDArray[np.float64] = np.maximum(0, 1 - firsts[:, 4] * firsts[:, 5] / (firsts[:, 0] * firsts[:, 1]))
    return cuts


def _list_firsts(part: Part) -> NDArray[np.int64]:
    """The first crop of each picture (N, 6)."""
    ends = part.array("crop" + ROWS)
    firsts: NDArray[np.int64] = part.array("crop")[np.concatenate([[0], ends[:-1]])].astype(np.int64)
    return firsts


def _list_rows(part: Part) -> Iterator[BucketCount]:
    firsts = _list_firsts(part)
    cut = 1 - firsts[:, 4] * firsts[:, 5] / (firsts[:, 0] * firsts[:, 1])
    upscaled: NDArray[np.bool_] = np.any(firsts[:, :2] > part.array("size"), axis=1)
    buckets = sorted({shape.bucket for shape in part.shapes})
    numbers = part.number_buckets(buckets)
    for number, bucket in enumerate(buckets):
        chosen = numbers == number
        count = int(chosen.sum())
        mean = float(cut[chosen].mean())
        yield BucketCount(part.shared.set_name, bucket, count, count * part.shared.repeats, int(upscaled[chosen].sum()), mean)
