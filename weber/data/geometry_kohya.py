"""Sizes as kohya-ss/sd-scripts has them: buckets between two sides, or with `bucket_no_upscale` the picture's own size in whole steps."""

from __future__ import annotations

from math import sqrt

from weber.config.data import DataConfig
from weber.data.buckets import Bucket, list_between
from weber.data.crops import Placement, cover
from weber.errors import DataError

SHORTEST, LONGEST = 256, 1024  # min_bucket_reso and max_bucket_reso, where nothing is said


def place_as_kohya(width: int, height: int, *, config: DataConfig) -> Placement:
    """`upscale = false` is `bucket_no_upscale`. Raises DataError with a one-line reason where no bucket is left."""
    step, area = config.step_pixels, config.area_pixels
    if not config.upscale:
        return _keep_small(width, height, step=step, area=area)
    shortest, longest = config.shortest_side or SHORTEST, config.longest_side or LONGEST
    buckets = list_between(area, step=step, shortest=shortest, longest=longest)
    if Bucket(width, height) in buckets:
        return Placement(Bucket(width, height), width, height)
    if not buckets:
        raise DataError(f"too small: there is no bucket of {area} pixels with sides of {shortest} to {longest}")
    return cover(width, height, bucket=min(buckets, key=lambda one: abs(one.width / one.height - width / height)))


def _keep_small(width: int, height: int, *, step: int, area: int) -> Placement:
    if width * height > area:
        width, height = _shrink(width / height, step=step, area=area)
    bucket = Bucket(width // step * step, height // step * step)
    if bucket.width == 0 or bucket.height == 0:
        raise DataError(f"too small: {width} x {height} pixels, bucket_step is {step}")
    return Placement(bucket, width, height)


def _shrink(aspect: float, *, step: int, area: int) -> tuple[int, int]:
    """A size of that area of which one side is whole steps: of the two the one whose other side, in whole steps, misses the aspect less."""

    def floor(pixels: float) -> int:
        return int(pixels + 0.5) // step * step

    width, height = floor(sqrt(area * aspect)), floor(area / sqrt(area * aspect))
    if not (width and height and floor(width / aspect) and floor(height * aspect)):
        raise DataError(f"too long: of {area} pixels a side would have less than one bucket_step of {step}")
    if abs(width / floor(width / aspect) - aspect) < abs(floor(height * aspect) / height - aspect):
        return width, int(width / aspect + 0.5)
    return int(height * aspect + 0.5), height
