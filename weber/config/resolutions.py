"""Resolutions as they are written: an edge, megapixels, or `"832x1216"`; and several of them, each of which is a set of its own."""

from __future__ import annotations

import re
from typing import Annotated

from pydantic import Field

from weber.config.section import Words

_RECTANGLE = re.compile(r"([1-9]\d{0,4}) ?x ?([1-9]\d{0,4})")

Resolution = Annotated[float, Field(gt=0)] | Annotated[str, Field(pattern=f"^{_RECTANGLE.pattern}$"), Words('"WIDTHxHEIGHT"')]
"""A number in the unit of `resolution_type`, or a rectangle in pixels."""

PictureSize = Annotated[str, Field(pattern=f"^{_RECTANGLE.pattern}$"), Words('"WIDTHxHEIGHT"')]
"""A rectangle in pixels."""


def read_rectangle(resolution: float | str) -> tuple[int, int] | None:
    """(width, height) of a rectangle; None for a number."""
    found = _RECTANGLE.fullmatch(resolution) if isinstance(resolution, str) else None
    return None if found is None else (int(found[1]), int(found[2]))


def count_pixels(resolution: float | str, *, in_megapixels: bool) -> int:
    """How many pixels are asked for."""
    rectangle = read_rectangle(resolution)
    if rectangle is not None:
        return rectangle[0] * rectangle[1]
    number = float(resolution)
    return round(number * 1024 * 1024) if in_megapixels else round(number * number)


def name_resolution(resolution: float | str) -> str:
    """In the name of a set."""
    return resolution.replace(" ", "") if isinstance(resolution, str) else f"{resolution:g}"
