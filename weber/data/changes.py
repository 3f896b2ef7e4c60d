"""What is done to the pixels of a window beside the cut: other colors, drawn once and kept, and left exchanged with right."""

from __future__ import annotations

import re
from collections.abc import Iterable, Sequence
from dataclasses import replace

import numpy as np
from PIL import Image, ImageEnhance

from weber.config.data import DataConfig
from weber.data.crops import Crop
from weber.data.seeds import draw_uniform

DEFAULT_NUM_COLORS = 3
_TINT = "tint 1"  # the number goes up with any change of the pixels that the same words make
_HUE_SHARE = 0.2  # of a circle, at a strength of 1: the eye minds a hue more than a brightness
_SIDES = re.compile(r"\b(left|right)(most|ward|wards|-hand|-handed)?\b", re.IGNORECASE)
_NOT_SIDES = re.compile(r"\b(all right|right (now|away|after|before|behind|next to)|left (over|behind|alone|open))\b", re.IGNORECASE)


def vary_crops(crops: Sequence[Crop], *, config: DataConfig, captions: Iterable[str], seed_parts: Sequence[int | str]) -> tuple[Crop, ...]:
    """Each window as it is, with other colors and mirrored, as the set asks; the first is the one of `crops`.

    `captions` are the picture's, for `mirror_sides`.
    """
    tints = [""]
    if config.color_jitter is not None:
        numbers = range(config.num_colors or DEFAULT_NUM_COLORS)
        tints += [draw_tint(config.color_jitter, seed_parts=(*seed_parts, number, "tint")) for number in numbers]
    is_kept = config.mirror_sides == "keep" and any(map(names_a_side, captions))
    sides = (False, True) if config.mirror and not is_kept else (False,)
    return tuple(replace(crop, is_mirrored=is_mirrored, tint=tint) for crop in crops for tint in tints for is_mirrored in sides)


def names_a_side(caption: str) -> bool:
    """Does a text say left or right of something in the picture?"""
    return _SIDES.search(_NOT_SIDES.sub("", caption)) is not None


def draw_tint(strength: float, *, seed_parts: Sequence[int | str]) -> str:
    """Other colors, in words: factors of brightness, contrast and saturation, up to `strength` beside 1, and a turn of the hues."""
    factors = [1 + strength * (2 * draw_uniform(*seed_parts, name) - 1) for name in ("brightness", "contrast", "saturation")]
    hue = _HUE_SHARE * strength * (2 * draw_uniform(*seed_parts, "hue") - 1)
    return f"{_TINT} " + " ".join(f"{number:.3f}" for number in (*factors, hue))


def paint_tint(image: Image.Image, tint: str) -> Image.Image:
    """An RGB picture in the colors of `draw_tint`."""
    brightness, contrast, saturation, hue = map(float, tint.removeprefix(_TINT).split())
    image = ImageEnhance.Brightness(image).enhance(brightness)
    image = ImageEnhance.Color(ImageEnhance.Contrast(image).enhance(contrast)).enhance(saturation)
    turned = np.array(image.convert("HSV"))
    turned[..., 0] += np.uint8(round(hue * 256) % 256)
    return Image.fromarray(turned, "HSV").convert("RGB") if round(hue * 256) else image
