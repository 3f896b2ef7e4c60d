"""Bytes of a picture file to RGB pixels, whatever its format and mode."""

from __future__ import annotations

import struct
import threading
import warnings
import zlib
from collections.abc import Callable
from contextlib import nullcontext
from dataclasses import replace
from hashlib import blake2b
from typing import TypeVar

import numpy as np
from PIL import ExifTags, Image, UnidentifiedImageError

from weber.data.colors import Colors, convert_colors, find_problem
from weber.data.formats import LARGEST_PIXELS, START_BYTES, explain_raw, explain_start, is_raw, open_picture
from weber.errors import DataError

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

# Pillow warns of large pictures and refuses those of twice that size, good ones here, and warns of odd metadata. Said once and for all:
# warnings.catch_warnings is not safe in threads.
Image.MAX_IMAGE_PIXELS = LARGEST_PIXELS // 2
warnings.filterwarnings("ignore", category=Image.DecompressionBombWarning)
warnings.filterwarnings("ignore", category=UserWarning, module=r"PIL\.")

_MANY_PIXELS = 50_000_000
_one_large = threading.Lock()
"""Of large pictures one is open at a time, whatever the number of threads."""

_PLAIN_MODES = ("1", "LAB")
"""Modes whose colors no profile changes: black and white, and colors that are none of a device."""

_FRAMED = ("GIF", "PNG", "WEBP", "AVIF", "TIFF")
_MORE_FRAMES = "several frames or pages, of which the first is trained"

_T = TypeVar("_T")


def encode_content(data: bytes) -> str:
    """Name of these bytes: 128 bits of blake2b as 32 hexadecimal digits."""
    return blake2b(data, digest_size=16).hexdigest()


def read_image(data: bytes) -> Image.Image:
    """The picture in a file's bytes, decoded to its end, upright (EXIF), as RGB in sRGB; transparent parts become white.

    Of animations and files of several pages the first. Raises DataError whose `what` is a one-line reason, and MissingExtraError where a
    plugin of Pillow would read it.
    """
    return read_colors(data).image


def read_colors(data: bytes) -> Colors:
    """`read_image`, and what was done to its colors."""
    return decode_picture(data, _read_first_frame)


def read_alpha(data: bytes) -> Image.Image | None:
    """How opaque the pixels of `read_image` are, as mode L; None for a picture without transparency. Raises DataError likewise."""
    return decode_picture(data, find_alpha)


def decode_picture(data: bytes, convert: Callable[[Image.Image], _T]) -> _T:
    """What `convert` makes of the upright picture in a file's bytes, in the mode that it has there. Raises as `read_image`."""
    if not data:
        raise DataError("empty file")
    try:
        with open_picture(data) as image:
            if is_raw(image):
                raise DataError(explain_raw())
            with _one_large if image.width * image.height > _MANY_PIXELS else nullcontext():
                image.load()
                return convert(_turn(image))
    except UnidentifiedImageError as error:
        raise DataError(explain_start(data[:START_BYTES]) or "not a picture: no known picture format") from error
    except Image.DecompressionBombError as error:
        most = f"{LARGEST_PIXELS // 1_000_000} million are read"
        raise DataError(f"too many pixels: at most {most}; scale the picture down") from error
    except _DAMAGE as error:
        raise DataError(f"damaged picture: {' '.join(str(error).split()) or type(error).__name__}") from error


def _turn(image: Image.Image) -> Image.Image:
    """Upright, as EXIF says."""
    try:
        turn = _TURNS.get(image.getexif().get(ExifTags.Base.Orientation))
    except _DAMAGE:  # of the metadata alone: the picture is good
        return image
    return image if turn is None else image.transpose(turn)


def flatten(image: Image.Image) -> Image.Image:
    """Any mode to RGB, over white, whatever the profile says."""
    if image.mode.startswith(("I", "F")):
        return _narrow(image).convert("RGB")
    if not image.has_transparency_data:
        return image.convert("RGB")
    image = image.convert("RGBA")
    return Image.alpha_composite(Image.new("RGBA", image.size, "white"), image).convert("RGB")


def _read_first_frame(image: Image.Image) -> Colors:
    colors = _flatten_in_srgb(image)
    try:
        has_more = image.format in _FRAMED and bool(image.is_animated)  # type: ignore[attr-defined]
    except _DAMAGE:  # of what follows: the first is good
        return colors
    return replace(colors, problem=colors.problem or _MORE_FRAMES) if has_more else colors


def _flatten_in_srgb(image: Image.Image) -> Colors:
    """Any mode to RGB, over white, in sRGB."""
    profile = image.info.get("icc_profile")
    if not profile or image.mode in _PLAIN_MODES:
        return Colors(flatten(image), problem="" if profile else _find_unsaid(image))
    colors = convert_colors(_build_opaque(image), profile)
    if not colors.done:
        return Colors(flatten(image), problem=colors.problem)
    alpha = find_alpha(image)
    if alpha is None:
        return colors
    return Colors(Image.composite(colors.image, Image.new("RGB", image.size, "white"), alpha), colors.done)


def _find_unsaid(image: Image.Image) -> str:
    try:
        return find_problem(image)
    except _DAMAGE:  # of the metadata alone: the picture is good
        return ""


def _build_opaque(image: Image.Image) -> Image.Image:
    """The colors alone, whatever lies over them, in the mode that their profile is made for."""
    if image.mode.startswith(("I", "F")):
        return _narrow(image)
    if image.mode in ("L", "LA", "La"):
        return image.convert("LA").getchannel("L")
    if image.mode == "CMYK":
        return image
    return image.convert("RGBA").convert("RGB") if image.has_transparency_data else image.convert("RGB")


def find_alpha(image: Image.Image) -> Image.Image | None:
    """How opaque the pixels of a picture are, as mode L; None for one without transparency."""
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
