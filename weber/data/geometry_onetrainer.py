"""Sizes as Nerogar/OneTrainer has them (mgds, AspectBucketing of 2026-07): nine shapes and the same upright, of about the area."""

from __future__ import annotations

from functools import lru_cache
from math import sqrt

from weber.config.data import DataConfig
from weber.data.buckets import Bucket
from weber.data.crops import Placement

_ASPECTS = (1.0, 1.25, 1.5, 1.75, 2.0, 2.5, 3.0, 3.5, 4.0)
"""Longer side by shorter side."""


def place_as_onetrainer(width: int, height: int, *, config: DataConfig) -> Placement:
    """Every picture is enlarged or made smaller to the bucket whose height by width is nearest to its own."""
    buckets = list_onetrainer_buckets(config.edge_pixels, step=config.step_pixels)
    if config.aspect == "square":
        edge = config.edge_pixels // config.step_pixels * config.step_pixels
        buckets = (Bucket(edge, edge),)
    bucket = min(buckets, key=lambda one: abs(one.height / one.width - height / width))
    if height / width > bucket.height / bucket.width:
        return Placement(bucket, bucket.width, round(height * (bucket.width / width)))
    return Placement(bucket, round(width * (bucket.height / height)), bucket.height)


@lru_cache
def list_onetrainer_buckets(edge: int, *, step: int) -> tuple[Bucket, ...]:
    """All sizes for squares of that edge, sorted; sides are rounded to multiples of `step`."""
    found: set[Bucket] = set()
    for aspect in _ASPECTS:
        shorter, longer = (max(step, round(side / step) * step) for side in (edge / sqrt(aspect), edge * sqrt(aspect)))
        found |= {Bucket(shorter, longer), Bucket(longer, shorter)}
    return tuple(sorted(found))
