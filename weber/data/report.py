"""Numbers about a dataset for a person."""

from __future__ import annotations

from dataclasses import dataclass

from weber.data.buckets import Bucket
from weber.data.examples import Dataset, Example


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
    rows: dict[str, dict[Bucket, list[Example]]] = {}
    for example in dataset.examples:
        rows.setdefault(example.set_name, {}).setdefault(example.bucket, []).append(example)
    return [
        BucketCount(
            set_name,
            bucket,
            num_pictures=len(examples),
            num_with_repeats=sum(example.repeats for example in examples),
            num_upscaled=sum(example.upscaled for example in examples),
            mean_cut_fraction=sum(example.cut_fraction for example in examples) / len(examples),
        )
        for set_name, buckets in rows.items()
        for bucket, examples in sorted(buckets.items())
    ]
