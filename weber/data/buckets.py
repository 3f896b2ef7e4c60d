"""Sizes of training pictures. Pure arithmetic on widths and heights."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from functools import lru_cache
from math import inf, isqrt

from weber.config.data import DataConfig
from weber.errors import DataError


@dataclass(frozen=True, order=True, slots=True)
class Bucket:
    """Pixels of a training picture."""

    width: int
    height: int


def list_buckets(area_pixels: int, *, step: int) -> list[Bucket]:
    """All buckets of at most that many pixels, sorted; sides are multiples of `step`. Empty if the area is below one step square.

    kohya-ss/sd-scripts `make_bucket_resolutions`. There the sides lie in 256..1024 whatever the area, so that at 1024 x 1024 any
    other aspect only shrinks; here they reach from half to twice the square's edge, for aspects of 1:4 to 4:1 at every resolution.
    """
    return list(_list_buckets(area_pixels, step, *_find_sides(area_pixels, step)))


def list_between(area_pixels: int, *, step: int, shortest: int, longest: int) -> tuple[Bucket, ...]:
    """All buckets of at most that many pixels whose sides are `shortest` plus whole steps, to `longest`, beside the square; sorted."""
    return _list_buckets(area_pixels, step, shortest, longest)


def check_size(width: int, height: int, *, config: DataConfig) -> None:
    """Raise DataError with a one-line reason for a picture that its set does not take."""
    minimum_edge = config.edge_pixels // 4 if config.minimum_edge is None else config.minimum_edge
    is_shaped = config.aspect in ("square", "closest", "random")
    megapixels, aspect = width * height / 1024**2, width / height
    low, high = config.aspect_range or (0.0, inf)
    if min(width, height) < minimum_edge:
        reason = f"too small: {width} x {height} pixels, minimum_edge is {minimum_edge}"
    elif config.minimum_megapixels is not None and megapixels < config.minimum_megapixels:
        reason = f"too small: {width} x {height} pixels, minimum_megapixels is {config.minimum_megapixels:g}"
    elif config.maximum_edge is not None and max(width, height) > config.maximum_edge:
        reason = f"too large: {width} x {height} pixels, maximum_edge is {config.maximum_edge}"
    elif config.maximum_megapixels is not None and megapixels > config.maximum_megapixels:
        reason = f"too large: {width} x {height} pixels, maximum_megapixels is {config.maximum_megapixels:g}"
    elif not low <= aspect <= high:
        reason = f"another aspect: {width} x {height} pixels, width / height is {aspect:.3g}, aspect_range is {low:g} to {high:g}"
    elif not is_shaped and max(width, height) > config.max_aspect * min(width, height):
        reason = f"too long: {width} x {height} pixels, max_aspect is {config.max_aspect:g}"
    else:
        return
    raise DataError(reason)


def build_bucket(width: int, height: int, *, config: DataConfig, sizes: Sequence[tuple[int, int]] = ()) -> Bucket:
    """The bucket of a picture: of its own size if there is one, else of the nearest aspect; for `aspect = "listed"` among the set's own
    `buckets` or else `sizes`, the model's.

    A picture that would have to be enlarged, which `upscale = False` forbids, gets a bucket of its own size in whole steps.
    Raises DataError with a one-line reason if that is empty.
    """
    bucket = _choose(width, height, config, sizes)
    if config.upscale or (bucket.width <= width and bucket.height <= height):
        return bucket
    return shrink(width, height, config=config)


def shrink(width: int, height: int, *, config: DataConfig) -> Bucket:
    """A bucket of the picture's own size; of a picture above the set's area, of the size it has when scaled down to that area.

    Raises DataError with a one-line reason if that is empty, or below `shortest_side`.
    """
    bucket = _shrink(width, height, config)
    if bucket.width == 0 or bucket.height == 0:
        raise DataError(f"too small: {width} x {height} pixels, bucket_step is {config.step_pixels} and upscale = false")
    if config.shortest_side is not None and min(bucket.width, bucket.height) < config.shortest_side:
        raise DataError(f"too small: {width} x {height} pixels, shortest_side is {config.shortest_side} and upscale = false")
    return bucket


def _find_sides(area_pixels: int, step: int) -> tuple[int, int]:
    """The shortest and the longest side of the buckets of an area, where nothing is said."""
    edge = isqrt(area_pixels)
    return max(_floor(edge // 2, step), step), _floor(2 * edge, step)


@lru_cache
def _list_buckets(area_pixels: int, step: int, shortest: int, longest: int) -> tuple[Bucket, ...]:
    edge = isqrt(area_pixels)
    buckets = {Bucket(_floor(edge, step), _floor(edge, step))} if edge >= step else set()
    for width in range(shortest, longest + 1, step):
        height = min(longest, _floor(area_pixels // width, step))
        if height >= shortest:
            buckets |= {Bucket(width, height), Bucket(height, width)}
    return tuple(sorted(buckets))


def _choose(width: int, height: int, config: DataConfig, sizes: Sequence[tuple[int, int]]) -> Bucket:
    if config.buckets:
        return _choose_own(width, height, config.buckets)
    if config.aspect == "listed":
        # of two that are equally near the smaller, as in diffusers' pipeline of the model that has such a list
        return Bucket(*min(sizes, key=lambda size: (abs(width / height - size[0] / size[1]), *size)))
    edge = _floor(isqrt(config.area_pixels), config.step_pixels)
    if config.aspect == "square":
        return Bucket(edge, edge)
    if config.resolution_type == "shorter_edge":
        longer = _round(edge * max(width, height) / min(width, height), config.step_pixels)
        longer = longer if config.longest_side is None else max(edge, min(longer, _floor(config.longest_side, config.step_pixels)))
        return Bucket(longer, edge) if width > height else Bucket(edge, longer)
    return _choose_nearest(width, height, config.area_pixels, config.step_pixels, (config.shortest_side, config.longest_side))


def _choose_own(width: int, height: int, sizes: Sequence[Sequence[int]]) -> Bucket:
    """Of the sizes with the nearest aspect the largest that the picture fills, else the smallest."""

    def differ(size: Sequence[int]) -> float:
        return abs(width / height - size[0] / size[1])

    least = min(map(differ, sizes))
    near = sorted((size for size in sizes if differ(size) == least), key=lambda size: (size[0] * size[1], *size))
    filled = [size for size in near if size[0] <= width and size[1] <= height]
    return Bucket(*(filled[-1] if filled else near[0]))


@lru_cache(maxsize=65536)
def _choose_nearest(width: int, height: int, area_pixels: int, step: int, limits: tuple[int | None, int | None]) -> Bucket:
    shortest, longest = _find_sides(area_pixels, step)
    shortest, longest = -(-(limits[0] or shortest) // step) * step, _floor(limits[1] or longest, step)
    buckets = _list_buckets(area_pixels, step, shortest, longest)
    if Bucket(width, height) in buckets:
        return Bucket(width, height)
    return min(buckets, key=lambda bucket: abs(bucket.width / bucket.height - width / height))


def _shrink(width: int, height: int, config: DataConfig) -> Bucket:
    """The picture's own size in whole steps; of a picture above the set's area, the size it has when scaled down to that area."""
    step = config.step_pixels
    if config.aspect == "square":
        edge = _floor(min(width, height), step)
        return Bucket(edge, edge)
    if config.resolution_type != "shorter_edge":
        area = config.area_pixels
        width, height = min(width, isqrt(area * width // height)), min(height, isqrt(area * height // width))
    if config.longest_side is not None:
        width, height = min(width, config.longest_side), min(height, config.longest_side)
    return Bucket(_floor(width, step), _floor(height, step))


def _floor(pixels: int, step: int) -> int:
    return pixels // step * step


def _round(pixels: float, step: int) -> int:
    return int(pixels / step + 0.5) * step
