"""Numbers about a dataset for a person."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

import numpy as np

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


def _list_rows(part: Part) -> Iterator[BucketCount]:
    ends = part.array("crop" + ROWS)
    firsts = part.array("crop")[np.concatenate([[0], ends[:-1]])].astype(np.int64)  # the first crop of each picture
    cut = 1 - firsts[:, 4] * firsts[:, 5] / (firsts[:, 0] * firsts[:, 1])
    upscaled = (firsts[:, :2] > part.array("size")).any(axis=1)
    buckets = sorted({shape.bucket for shape in part.shapes})
    numbers = part.number_buckets(buckets)
    for number, bucket in enumerate(buckets):
        chosen = numbers == number
        count = int(chosen.sum())
        mean = float(cut[chosen].mean())
        yield BucketCount(part.shared.set_name, bucket, count, count * part.shared.repeats, int(upscaled[chosen].sum()), mean)
