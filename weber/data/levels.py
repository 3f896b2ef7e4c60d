"""What a mask file says of each pixel, 0 to 255: white counts, black does not, and what is transparent does not either."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from PIL import Image, ImageChops

from weber.data.images import decode_picture, find_alpha, flatten

LAYER, CUTOUT = "layer", "cut-out"

_GRAY_SPREAD = 16  # levels by which the channels of a gray may differ, as in JPEG
_NEAR = 16  # levels by which paint may miss black or white
_PAINTED_SHARE = 0.5


@dataclass(frozen=True)
class Levels:
    """A mask of mode L, upright. `form`: `layer` where paint lies on a transparent layer, `cut-out` where the alpha channel alone is the
    mask, empty for an opaque file."""

    image: Image.Image
    form: str = ""

    @property
    def share(self) -> float:
        """The mean, 0..1."""
        return float(np.asarray(self.image).mean() / 255)


def read_levels(data: bytes) -> Levels:
    """The mask in a picture file's bytes. Colors are numbers here, so no profile changes them. Raises as `read_image`.

    Of a file with transparent parts those are 0. What is left of it is paint, which counts by its brightness, or a picture that was cut
    out, in its own colors: then it counts as a whole.
    """
    return decode_picture(data, _build_levels)


def _build_levels(image: Image.Image) -> Levels:
    gray, alpha = flatten(image).convert("L"), find_alpha(image)
    if alpha is None or alpha.getextrema() == (255, 255):
        return Levels(gray)
    if image.mode.startswith(("I", "F")):
        return Levels(ImageChops.multiply(gray, alpha), LAYER)
    colors = image.convert("RGBA").convert("RGB")
    if _is_painted(colors, alpha):
        return Levels(ImageChops.multiply(colors.convert("L"), alpha), LAYER)
    return Levels(alpha, CUTOUT)


def _is_painted(colors: Image.Image, alpha: Image.Image) -> bool:
    """Is what is not transparent mostly black and white?"""
    seen = np.asarray(colors)[np.asarray(alpha) > 0].astype(np.int16)
    if not len(seen):
        return True
    darkest, brightest = seen.min(axis=1), seen.max(axis=1)
    is_paint = (brightest - darkest <= _GRAY_SPREAD) & ((brightest <= _NEAR) | (darkest >= 255 - _NEAR))
    return bool(is_paint.mean() >= _PAINTED_SHARE)
