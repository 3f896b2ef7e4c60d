"""Bytes of a picture file to RGB pixels, whatever its format and mode."""

from __future__ import annotations

import struct
import warnings
import zlib
from collections.abc import Callable
from hashlib import blake2b
from io import BytesIO
from typing import TypeVar

import numpy as np
from PIL import ExifTags, Image, UnidentifiedImageError

from weber.errors import DataError

SUFFIXES = frozenset({".jpg", ".jpeg", ".png", ".webp", ".avif", ".bmp", ".tif", ".tiff", ".gif"})
"""Endings of picture files, compared without case."""

# What Pillow's readers raise on damaged files, beside its own errors.
_DAMAGE = (
    *(OSError, EOFError, SyntaxError, ValueError, TypeError, AttributeError, RuntimeError, MemoryError),
    *(ArithmeticError, LookupError, struct.error, zlib.error),
)

_TURNS: dict[object, Image.Transpose] = {
    2: Image.Transpose.FLIP_LEFT_RIGHT,
    3: Image.Transpose.ROTATE_180,
    4: Image.Transpose.FLIP_TOP_BOTTOM,
    5: Image.Transpose.TRANSPOSE,
    6: Image.Transpose.ROTATE_270,
    7: Image.Transpose.TRANSVERSE,
    8: Image.Transpose.ROTATE_90,
}
"""What makes a picture of each EXIF orientation upright."""

_WHITES = {"I": (255, 65535, 2**31 - 1), "F": (1, 255, 65535)}
"""Usual values of white in the modes that do not say it; the others of more than 8 bits have 16."""

# Pillow warns of sizes from 90 million pixels, good pictures here (it raises at 179), and of odd metadata. Filtered once and for all:
# warnings.catch_warnings is not safe in threads.
warnings.filterwarnings("ignore", category=Image.DecompressionBombWarning)
warnings.filterwarnings("ignore", category=UserWarning, module=r"PIL\.")


_T = TypeVar("_T")


def encode_content(data: bytes) -> str:
    """Name of these bytes: 128 bits of blake2b as 32 hexadecimal digits."""
    return blake2b(data, digest_size=16).hexdigest()


def read_image(data: bytes) -> Image.Image:
    """The picture in a file's bytes, decoded to its end, upright (EXIF), as RGB; transparent parts become white.

    Of animations and files of several pages the first. Raises DataError whose `what` is a one-line reason.
    """
    return _read(data, _flatten)


def read_alpha(data: bytes) -> Image.Image | None:
    """How opaque the pixels of `read_image` are, as mode L; None for a picture without transparency. Raises DataError likewise."""
    return _read(data, _find_alpha)


def _read(data: bytes, convert: Callable[[Image.Image], _T]) -> _T:
    if not data:
        raise DataError("empty file")
    try:
        with Image.open(BytesIO(data)) as image:
            image.load()
            return convert(_turn(image))
    except UnidentifiedImageError as error:
        raise DataError("not a picture: no known picture format") from error
    except Image.DecompressionBombError as error:
        raise DataError(f"too many pixels: {error}") from error
    except _DAMAGE as error:
        raise DataError(f"damaged picture: {' '.join(str(error).split()) or type(error).__name__}") from error


def _turn(image: Image.Image) -> Image.Image:
    """Upright, as EXIF says."""
    try:
        turn = _TURNS.get(image.getexif().get(ExifTags.Base.Orientation))
    except _DAMAGE:  # of the metadata alone: the picture is good
        return image
    return image if turn is None else image.transpose(turn)


def _flatten(image: Image.Image) -> Image.Image:
    """Any mode to RGB, over white."""
    if image.mode.startswith(("I", "F")):
        return _narrow(image).convert("RGB")
    if not image.has_transparency_data:
        return image.convert("RGB")
    image = image.convert("RGBA")
    return Image.alpha_composite(Image.new("RGBA", image.size, "white"), image).convert("RGB")


def _find_alpha(image: Image.Image) -> Image.Image | None:
    if not image.has_transparency_data:
        return None
    if image.mode.startswith(("I", "F")):
        seen = np.asarray(image) != image.info["transparency"]
        return Image.fromarray(seen.astype(np.uint8) * np.uint8(255))
    return image.convert("RGBA").getchannel("A")


def _narrow(image: Image.Image) -> Image.Image:
    """Gray of 16 or 32 bits or floating point to 8 bits.

    White is the smallest usual one that the brightest pixel does not exceed.
    """
    values = np.asarray(image).astype(np.float64)
    white = next((white for white in _WHITES.get(image.mode, (65535,)) if values.max() <= white), None)
    if white is None:
        raise DataError(f"unknown gray scale: values up to {values.max():g}")
    narrow = np.floor(values.clip(0, white) * (255 / white) + 0.5).astype(np.uint8)
    if isinstance(transparent := image.info.get("transparency"), int):
        narrow[values == transparent] = 255
    return Image.fromarray(narrow)
