"""Sizes as ostris/ai-toolkit has them (toolkit/buckets.py of 2026-08): the picture's own shape in whole steps, of at most the area."""

from __future__ import annotations

from math import ceil, floor

from weber.config.data import DataConfig
from weber.data.buckets import Bucket
from weber.data.crops import Placement


def place_as_ai_toolkit(width: int, height: int, *, config: DataConfig) -> Placement:
    """A picture below the area keeps its size, but that a side may be enlarged to the next whole step."""
    if config.aspect == "square":
        edge = config.edge_pixels // config.step_pixels * config.step_pixels
        return _cover(width, height, bucket=Bucket(edge, edge))
    return _cover(width, height, bucket=_choose(width, height, step=config.step_pixels, area=config.area_pixels))


def _choose(width: int, height: int, *, step: int, area: int) -> Bucket:
    """Of the four sizes around the scaled picture that have at most the area, the one whose pixels are nearest to it."""
    own = width * height
    wanted = min(own, area)
    scale = (wanted / own) ** 0.5
    across, down = width * scale / step, height * scale / step
    sizes = [(one * step, other * step) for one in (floor(across), ceil(across)) for other in (floor(down), ceil(down))]
    fitting = [size for size in sizes if min(size) > 0 and size[0] * size[1] <= area]
    least = max(step, floor(across) * step), max(step, floor(down) * step)
    return Bucket(*min(fitting or [least], key=lambda size: abs(size[0] * size[1] - wanted)))


def _cover(width: int, height: int, *, bucket: Bucket) -> Placement:
    """Rounded up, so that often one pixel more is cut away than elsewhere."""
    scale = max(bucket.width / width, bucket.height / height)
    return Placement(bucket, ceil(width * scale), ceil(height * scale))
