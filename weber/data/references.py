"""References as they belong to a picture's windows: cut alike, in their own shape, or the picture itself in another window or colors."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import replace
from math import sqrt
from pathlib import Path

from weber.config.data import DataConfig
from weber.data.buckets import Bucket
from weber.data.changes import draw_tint
from weber.data.crops import Crop, Placement, build_crops, build_reference_crop, cut_crops
from weber.data.examples import Reference
from weber.data.index import FileFacts
from weber.errors import DataError

Size = Callable[[int, int], tuple[int, int]]

_ROOM = 1.5  # how much larger the picture is at most than its window, where another window of it is the reference
_OTHER_COLORS = 0.25


def build_references(
    files: Sequence[tuple[Path, FileFacts]], crops: Sequence[Crop], *, picture: FileFacts, config: DataConfig, size: Size
) -> Iterator[Reference]:
    """Those that were found for a picture. `size` says what (width, height) one of that many pixels gets that keeps its own shape."""
    for number, (path, facts) in enumerate(files):
        if config.conditioning_type == "reference_loose":
            edge = config.reference_sizes[number] if number < len(config.reference_sizes) else None
            yield _build_loose(path, facts, crops, size=size, edge=edge)
        else:
            like = (picture.width, picture.height)
            windows = tuple(build_reference_crop(facts.width, facts.height, crop=crop, picture=like) for crop in crops)
            yield Reference(path, facts.content, windows, facts.form)


def build_own_reference(path: Path, picture: FileFacts, *, crops: Sequence[Crop], kind: str, seed: int) -> Reference:
    """The picture itself, in another window of the same size or in other colors. Raises DataError with a one-line reason."""
    parts = (seed, picture.content, "own")
    if kind == "color":
        others = tuple(
            replace(crop, tint=draw_tint(_OTHER_COLORS, seed_parts=(*parts, number, "tint"))) for number, crop in enumerate(crops)
        )
        return Reference(path, picture.content, others, picture.form)
    moved = tuple(_move(crop, picture, (*parts, number)) for number, crop in enumerate(crops))
    return Reference(path, picture.content, moved, picture.form)


def _build_loose(path: Path, facts: FileFacts, crops: Sequence[Crop], *, size: Size, edge: float | None) -> Reference:
    width, height = facts.width, facts.height
    if edge is not None:
        scale = min(1.0, edge / sqrt(width * height))
        width, height = max(1, round(width * scale)), max(1, round(height * scale))
    (own,) = build_crops(facts.width, facts.height, bucket=Bucket(*size(width, height)), style="center", num_crops=1, seed_parts=())
    return Reference(path, facts.content, tuple(replace(own, is_mirrored=one.is_mirrored, tint=one.tint) for one in crops), facts.form)


def _move(crop: Crop, picture: FileFacts, seed_parts: Sequence[int | str]) -> Crop:
    """Another window of the same size, out of the picture at up to `_ROOM` times its size there; it is not enlarged."""
    scale = max(1.0, min(_ROOM, picture.width / crop.resize_width, picture.height / crop.resize_height))
    resized = max(crop.width, int(crop.resize_width * scale)), max(crop.height, int(crop.resize_height * scale))
    placed = Placement(Bucket(crop.width, crop.height), *resized)
    others = cut_crops(placed, style="random", num_crops=4, seed_parts=seed_parts)
    own = replace(crop, is_mirrored=False, tint="")
    found = next((other for other in others if other != own), None)
    if found is None:
        raise DataError(f"no other window: all of the picture is in its window of {crop.width} x {crop.height} pixels")
    return replace(found, is_mirrored=crop.is_mirrored, tint=crop.tint)
