"""Sizes as SimpleTuner has them, measured by running it: a picture is resized to cover a target of its rounded aspect, then cut.

Two things are otherwise here. There the first picture of a rounded aspect decides the target of all later ones, so that sizes depend on the
order of files; here each picture has its own. And where a target reaches beyond the resized picture, so that the window would be partly
empty, the picture covers it here.
"""

from __future__ import annotations

from math import isclose, sqrt

from weber.config.data import DataConfig
from weber.config.resolutions import read_rectangle
from weber.data.buckets import Bucket
from weber.data.crops import Placement, cover

_EDGES = {0.25: 512, 0.5: 768, 1.0: 1024, 2.0: 1536, 4.0: 2048}
"""Edges of squares by their megapixels, which are taken at up to 0.05 beside."""


def place_as_simpletuner(width: int, height: int, *, config: DataConfig, aspect: float | None) -> Placement:
    """Enlarges too. `aspect` is that of `aspects`; of its own the picture's is rounded to two digits."""
    shape = 1.0 if config.aspect == "square" else round(width / height, 2) if aspect is None else aspect
    target = _build_target(shape, config, resolution=config.resolution)
    resized = _cover(width / height, target, config)
    window = target
    if round(target[0] / target[1], 2) == 1.0:
        edge = _find_square_edge(config, target)
        window = edge, edge
        resized = window if resized[0] < edge else resized
    if config.downsample_to is not None and (width, height) != window:
        resized = _downsample(width, height, window=window, config=config)
    bucket = Bucket(*window)
    return Placement(bucket, *resized) if window[0] <= resized[0] and window[1] <= resized[1] else cover(width, height, bucket=bucket)


def _build_target(aspect: float, config: DataConfig, *, resolution: object) -> tuple[int, int]:
    step, number = config.step_pixels, _read_number(resolution, config)
    if config.resolution_type == "shorter_edge":
        edge = _round(number, step)
        if aspect < 1:
            return edge, _round(int(number / aspect), step)
        return _round(int(number * aspect), step), edge
    edge = _round(int(sqrt(number * 1e6 if config.resolution_type == "megapixels" else number * number)), step)
    return _round(edge * sqrt(aspect), step), _round(edge / sqrt(aspect), step)


def _cover(aspect: float, target: tuple[int, int], config: DataConfig) -> tuple[int, int]:
    """The size that a picture of that aspect is resized to, so that it covers the target; where it would not, the rest is added to it."""
    width, height = target
    if config.resolution_type == "shorter_edge":
        if (aspect < 1 and int(width / aspect) >= height) or int(height * aspect) < width:
            return width, int(width / aspect)
        return int(height * aspect), height
    if round(width / height, 2) < 1:
        other = int(width / aspect)
        return (width, other) if other >= height else (width + int((height - other) * aspect), height)
    other = int(height * aspect)
    return (other, height) if other >= width else (width, height + int((width - other) / aspect))


def _downsample(width: int, height: int, *, window: tuple[int, int], config: DataConfig) -> tuple[int, int]:
    """To the size of `downsample_to`, and where that does not cover the window, to one that does."""
    target = _build_target(round(width / height, 2), config, resolution=config.downsample_to)
    resized = _cover(width / height, target, config)
    if window[0] <= resized[0] and window[1] <= resized[1]:
        return resized
    aspect = resized[0] / resized[1]
    return (window[0], int(window[0] / aspect)) if aspect < 1 else (int(window[1] * aspect), window[1])


def _find_square_edge(config: DataConfig, target: tuple[int, int]) -> int:
    number = _read_number(config.resolution, config)
    if config.resolution_type != "megapixels":
        return int(number) if int(number) % config.step_pixels == 0 else target[1]
    return next((edge for size, edge in _EDGES.items() if isclose(size, number, abs_tol=0.05)), target[1])


def _read_number(resolution: object, config: DataConfig) -> float:
    if isinstance(resolution, float):
        return resolution
    rectangle = read_rectangle(resolution) if isinstance(resolution, str) else None
    return sqrt(config.area_pixels if rectangle is None else rectangle[0] * rectangle[1])


def _round(pixels: float, step: int) -> int:
    """To the nearest multiple, halves to the even one; at least one step."""
    return max(step, round(pixels / step) * step)
