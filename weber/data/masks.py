"""Masks for a model that repaints: white is painted anew. From a file, or drawn at random."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from math import cos, pi, sin, sqrt
from pathlib import Path

import numpy as np
from numpy.typing import NDArray
from PIL import Image, ImageDraw

from weber.data.crops import Crop
from weber.data.levels import Levels, read_levels
from weber.data.seeds import draw_uniform
from weber.errors import DataError

SMALLEST_SHARE, LARGEST_SHARE = 0.1, 0.7
"""How much of a picture a drawn mask covers, unless it covers all of it."""

# Goes up with any change of the pixels that the same file, or the same content of a drawn mask, becomes.
_PIXELS_VERSION = 1

_THRESHOLD = 128
_WHOLE_PROBABILITY = 0.1
_NUM_TRIES = 100
_NUM_JOINTS = 6


@dataclass(frozen=True, slots=True)
class Mask:
    """A file, whose bytes `content` names; or, without a path, what is drawn from the text `content`.

    `form`: see `Levels`. `share`: how much of a file is white, 0..1.
    """

    path: Path | None
    content: str
    form: str = ""
    share: float = field(default=1.0, compare=False)

    def describe(self) -> str:
        """Canonical text for cache keys."""
        kind = "drawn" if self.path is None else self.form
        return f"{kind} mask {_PIXELS_VERSION} {self.content}".lstrip()


def read_white(data: bytes) -> Levels:
    """The mask in a picture file's bytes, of 0 and 255, upright; gray is cut at 128, what is transparent is 0.

    Raises DataError whose `what` is a one-line reason, also where nothing is white.
    """
    levels = read_levels(data)
    gray = np.asarray(levels.image)
    white = gray >= _THRESHOLD
    if not white.any():
        elsewhere = ", what is transparent counts as black" if levels.form else ""
        raise DataError(f"mask has nothing white: its brightest pixel is {gray.max()} of 255{elsewhere}")
    return Levels(Image.fromarray(white.astype(np.uint8) * np.uint8(255)), levels.form)


def list_showing(crops: Sequence[Crop], *, box: Sequence[int], width: int, height: int) -> tuple[Crop, ...]:
    """Those windows in which something white is left of a mask of that size, whose white lies in `box` (left, top, right, bottom)."""
    left, top, right, bottom = box
    return tuple(
        crop
        for crop in crops
        if _meets(left, right, size=width, resized=crop.resize_width, start=crop.left, length=crop.width)
        and _meets(top, bottom, size=height, resized=crop.resize_height, start=crop.top, length=crop.height)
    )


def _meets(first: int, stop: int, *, size: int, resized: int, start: int, length: int) -> bool:
    """Does the window, along one side, have a pixel whose nearest one before the resize is of first .. stop - 1?"""
    # pixel x of the resized picture is pixel (2 x + 1) size / (2 resized) of the mask, rounded down
    lowest = -((size - 2 * first * resized) // (2 * size))
    highest = -((size - 2 * stop * resized) // (2 * size)) - 1
    return max(lowest, start) <= min(highest, start + length - 1)


def draw_mask(width: int, height: int, *, content: str) -> NDArray[np.uint8]:
    """Rectangles or strokes of a brush over 10 to 70 % of the pixels, now and then all of them: (H, W), 255 = painted anew."""
    if draw_uniform(content, "whole") < _WHOLE_PROBABILITY:
        return np.full((height, width), 255, dtype=np.uint8)
    drawn = Image.new("L", (width, height))
    share, wanted = 0.0, SMALLEST_SHARE + (LARGEST_SHARE - SMALLEST_SHARE) * draw_uniform(content, "share")
    add = _add_stroke if draw_uniform(content, "kind") < 0.5 else _add_rectangle
    for number in range(_NUM_TRIES):
        more = drawn.copy()
        add(more, (wanted - share) * (0.3 + 0.7 * draw_uniform(content, number, "size")), content=f"{content} {number}")
        new_share = np.count_nonzero(np.asarray(more)) / (width * height)
        if new_share <= LARGEST_SHARE:
            drawn, share = more, new_share
        if share >= max(SMALLEST_SHARE, 0.9 * wanted):
            break
    return np.array(drawn)


def _add_rectangle(image: Image.Image, share: float, *, content: str) -> None:
    """A rectangle of about that share of the picture, two times as long as wide at most."""
    stretch = 2 ** (draw_uniform(content, "stretch") - 0.5)
    width = min(image.width, round(image.width * sqrt(share) * stretch))
    height = min(image.height, round(image.height * sqrt(share) / stretch))
    left = round((image.width - width) * draw_uniform(content, "left"))
    top = round((image.height - height) * draw_uniform(content, "top"))
    if width and height:
        ImageDraw.Draw(image).rectangle((left, top, left + width - 1, top + height - 1), fill=255)


def _add_stroke(image: Image.Image, share: float, *, content: str) -> None:
    """A bent line of a round brush that covers about that share of the picture, a little less where it crosses itself or the edge."""
    draw, size = ImageDraw.Draw(image), sqrt(image.width * image.height)
    # a line of `length` brush widths covers length x width squared
    length = 2 + 4 * draw_uniform(content, "length")
    brush = size * sqrt(share / length)
    x, y = image.width * draw_uniform(content, "x"), image.height * draw_uniform(content, "y")
    angle = 2 * pi * draw_uniform(content, "angle")
    for joint in range(_NUM_JOINTS + 1):
        draw.ellipse((x - brush / 2, y - brush / 2, x + brush / 2, y + brush / 2), fill=255)
        step = brush * length / _NUM_JOINTS
        angle += (draw_uniform(content, joint, "turn") - 0.5) * pi / 2
        next_x, next_y = x + step * cos(angle), y + step * sin(angle)
        if not (0 <= next_x <= image.width and 0 <= next_y <= image.height):
            angle += pi / 2
            next_x, next_y = x + step * cos(angle), y + step * sin(angle)
        if joint < _NUM_JOINTS:
            draw.line((x, y, next_x, next_y), fill=255, width=max(1, round(brush)))
        x, y = next_x, next_y
