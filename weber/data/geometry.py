"""The size of a training picture, and the size that it is resized to before its window is cut out, as weber or another trainer has them."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from math import isqrt, sqrt

from weber.config.data import DataConfig
from weber.config.resolutions import count_pixels
from weber.data.buckets import build_bucket, shrink
from weber.data.crops import Placement, cover
from weber.data.geometry_ai_toolkit import place_as_ai_toolkit
from weber.data.geometry_kohya import place_as_kohya
from weber.data.geometry_onetrainer import place_as_onetrainer
from weber.data.geometry_simpletuner import place_as_simpletuner
from weber.data.seeds import draw_weighted

Sizes = Sequence[tuple[int, int]]


def place_picture(width: int, height: int, *, config: DataConfig, sizes: Sizes = (), aspect: float | None = None) -> Placement:
    """Where a picture goes; `sizes` are those of the model, `aspect` the shape that was chosen for it.

    It covers its window, and without `upscale` it is not enlarged. Raises DataError with a one-line reason where it is too small.
    """
    return _GEOMETRIES[config.geometry](width, height, config, sizes, aspect)


def choose_aspect(width: int, height: int, *, config: DataConfig, seed_parts: Sequence[int | str]) -> float | None:
    """The shape, width divided by height, that a picture gets of its set's `aspects`; None where it keeps about its own."""
    if config.aspect == "closest":
        own = round(width / height, 2) if config.geometry == "simpletuner" else width / height
        return min(config.aspects, key=lambda one: abs(one - own))
    if config.aspect == "random":
        weights = config.aspect_weights or [1.0] * len(config.aspects)
        return config.aspects[draw_weighted(weights, *seed_parts, "aspect")]
    return None


def _place(width: int, height: int, config: DataConfig, sizes: Sizes, aspect: float | None) -> Placement:
    window = (width, height) if aspect is None else cut_to(width, height, aspect=aspect)
    bucket = build_bucket(*window, config=config, sizes=sizes)
    return _enlarge(width, height, cover(width, height, bucket=bucket), config=config)


def _place_as_kohya(width: int, height: int, config: DataConfig, sizes: Sizes, aspect: float | None) -> Placement:
    if config.aspect == "square":
        return _place(width, height, config, sizes, aspect)
    return _place_within(width, height, place_as_kohya, config=config, aspect=aspect)


def _place_as_ai_toolkit(width: int, height: int, config: DataConfig, sizes: Sizes, aspect: float | None) -> Placement:
    placed = _place_within(width, height, place_as_ai_toolkit, config=config, aspect=aspect)
    return _keep_small(width, height, placed, config=config, aspect=aspect)


def _place_as_onetrainer(width: int, height: int, config: DataConfig, sizes: Sizes, aspect: float | None) -> Placement:
    placed = _place_within(width, height, place_as_onetrainer, config=config, aspect=aspect)
    return _keep_small(width, height, placed, config=config, aspect=aspect)


def _place_as_simpletuner(width: int, height: int, config: DataConfig, sizes: Sizes, aspect: float | None) -> Placement:
    placed = place_as_simpletuner(width, height, config=config, aspect=aspect)
    return _keep_small(width, height, placed, config=config, aspect=aspect)


def _place_within(width: int, height: int, place: Callable[..., Placement], *, config: DataConfig, aspect: float | None) -> Placement:
    """As another trainer places the picture, or what is left of it in the shape that was chosen."""
    window = (width, height) if aspect is None else cut_to(width, height, aspect=aspect)
    placed = place(*window, config=config)
    return _enlarge(width, height, placed if aspect is None else cover(width, height, bucket=placed.bucket), config=config)


def _keep_small(width: int, height: int, placed: Placement, *, config: DataConfig, aspect: float | None) -> Placement:
    """Without `upscale`, a picture that would be enlarged in a size of its own."""
    if config.upscale or (placed.resize_width <= width and placed.resize_height <= height):
        return placed
    window = (width, height) if aspect is None else cut_to(width, height, aspect=aspect)
    small = min(width, placed.bucket.width) * min(height, placed.bucket.height) < placed.bucket.width * placed.bucket.height
    return cover(width, height, bucket=shrink(*window, config=config) if small else placed.bucket)


_GEOMETRIES: Mapping[str, Callable[[int, int, DataConfig, Sizes, float | None], Placement]] = {
    "ours": _place,
    "ai-toolkit": _place_as_ai_toolkit,
    "kohya": _place_as_kohya,
    "onetrainer": _place_as_onetrainer,
    "simpletuner": _place_as_simpletuner,
}


def cut_to(width: int, height: int, *, aspect: float) -> tuple[int, int]:
    """The largest size of that shape inside of a picture."""
    if width >= height * aspect:
        return max(1, int(height * aspect)), height
    return width, max(1, int(width / aspect))


def _enlarge(width: int, height: int, placed: Placement, *, config: DataConfig) -> Placement:
    """The size before the cut, as `downsample_to` wants it: never larger than the picture, nor smaller than its window."""
    if config.downsample_to is None or (config.downsample_above is not None and not _exceeds(width, height, config)):
        return placed
    if config.resolution_type == "shorter_edge":
        scale = config.downsample_to / min(width, height)
    else:
        scale = sqrt(count_pixels(config.downsample_to, in_megapixels=config.resolution_type == "megapixels") / (width * height))
    if min(1, scale) * width <= placed.resize_width:
        return placed
    scale = min(1, scale)
    return Placement(placed.bucket, max(placed.bucket.width, round(scale * width)), max(placed.bucket.height, round(scale * height)))


def _exceeds(width: int, height: int, config: DataConfig) -> bool:
    assert config.downsample_above is not None
    if config.resolution_type == "shorter_edge":
        return min(width, height) > config.downsample_above
    return isqrt(width * height) > isqrt(count_pixels(config.downsample_above, in_megapixels=config.resolution_type == "megapixels"))
