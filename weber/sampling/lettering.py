"""Text on pictures, in any script: Pillow's own font where it has the letter, else shapes of 16 pixels that come with weber.

A fallback of our own, because a machine without a screen has no fonts, and one that covers all scripts has many megabytes.
"""

from __future__ import annotations

import unicodedata
from collections.abc import Mapping, Sequence
from functools import cache
from itertools import groupby
from pathlib import Path

import numpy as np
from PIL import Image, ImageDraw, ImageFont

TEXT_PIXELS = 16
LINE_PIXELS = TEXT_PIXELS + 4
_GLYPHS = Path(__file__).with_name("glyphs") / "glyphs.npz"
_INVISIBLE = ("Mn", "Me", "Cf", "Cc")  # categories of Unicode: marks on a letter, and what joins or steers letters
_NONE = "\U0010ffff"
_BELOW_PIXELS = 2  # of a shape, under the line that letters stand on
_UNKNOWN = 0xFFFD


def wrap_text(text: str, width: int, *, max_lines: int) -> list[str]:
    """The text in lines of at most that many pixels, broken at blanks, and within words that are longer than a line or have no blanks."""
    lines = [""]
    for word in " ".join(text.split()).split(" "):
        joined = f"{lines[-1]} {word}".strip()
        if measure_text(joined) <= width:
            lines[-1] = joined
            continue
        lines += [""] * bool(lines[-1])
        for character in word:
            if lines[-1] and measure_text(lines[-1] + character) > width:
                lines.append("")
            lines[-1] += character
        if len(lines) > max_lines:
            break
    return lines[:max_lines]


def measure_text(text: str) -> int:
    """Its width in pixels."""
    return sum(_measure_run(run, is_own=is_own) for is_own, run in _split_runs(text))


def draw_text(picture: Image.Image, corner: tuple[int, int], *, text: str) -> None:
    """Write a line in black, from its top left corner."""
    left, top = corner
    draw, baseline = ImageDraw.Draw(picture), top + _load_font().getmetrics()[0]
    for is_own, run in _split_runs(text):
        if is_own:
            draw.text((left, top), run, "black", font=_load_font())
            left += _measure_run(run, is_own=True)
            continue
        for character in run:
            shape = _build_shape(character)
            picture.paste("black", (left, baseline + _BELOW_PIXELS - TEXT_PIXELS), shape)
            left += shape.width


def _split_runs(text: str) -> list[tuple[bool, str]]:
    """Stretches that Pillow's font has, and that it lacks; without what has no width of its own."""
    composed = unicodedata.normalize("NFC", text)
    visible = (character for character in composed if unicodedata.category(character) not in _INVISIBLE)
    return [(is_own, "".join(run)) for is_own, run in groupby(visible, _has_letter)]


def _measure_run(run: str, *, is_own: bool) -> int:
    return round(_load_font().getlength(run)) if is_own else sum(_build_shape(character).width for character in run)


@cache
def _load_font() -> ImageFont.FreeTypeFont:
    font = ImageFont.load_default(TEXT_PIXELS)
    assert isinstance(font, ImageFont.FreeTypeFont)
    return font


@cache
def _has_letter(character: str) -> bool:
    """Whether Pillow's font has it: a letter that it lacks looks as one that nobody has."""
    return character == " " or _look(character) != _look(_NONE)


def _look(character: str) -> tuple[object, bytes]:
    mask = _load_font().getmask(character)
    return mask.size, bytes(mask)


@cache
def _build_shape(character: str) -> Image.Image:
    """A mask of 16 rows, 8 or 16 pixels wide."""
    glyphs = _load_glyphs()
    is_wide, rows = glyphs.get(ord(character)) or glyphs[_UNKNOWN]
    mask = Image.frombytes("1", (TEXT_PIXELS, TEXT_PIXELS), np.asarray(rows, ">u2").tobytes())
    return mask if is_wide else mask.crop((0, 0, TEXT_PIXELS // 2, TEXT_PIXELS))


@cache
def _load_glyphs() -> Mapping[int, tuple[bool, Sequence[int]]]:
    with np.load(_GLYPHS) as file:
        codes, wide, rows = file["codes"], file["wide"], file["rows"]
    return dict(zip(codes.tolist(), zip(np.unpackbits(wide)[: len(codes)].astype(bool).tolist(), rows, strict=True), strict=True))
