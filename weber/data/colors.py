"""Colors of a picture as they are meant, by the profile inside of its file, in sRGB: what viewers show, and what models have seen."""

from __future__ import annotations

from dataclasses import dataclass
from functools import lru_cache
from io import BytesIO

import numpy as np
from PIL import ExifTags, Image, ImageCms

CONVERTED = "srgb 1"
"""What was done to colors, for cache keys. The number goes up with any change of the pixels that a conversion makes."""

_SPACES = {"RGB": "RGB", "L": "GRAY", "CMYK": "CMYK"}
"""The color space that a profile has for a picture of each mode."""

_NUM_KEPT = 64  # a set has few profiles, and each is some kilobytes
_TOLERANCE = 2  # levels of 255 by which descriptions of sRGB differ from each other
_ADOBE, _ADOBE_NUMBER = "R03", 2
_WIDE_PRIMARIES = (9, 11, 12)
"""ITU-T H.273: BT.2020, and DCI-P3 with two whites."""
_TAKEN = "colors are taken as sRGB"
_UNUSABLE = f"color profile cannot be used, so {_TAKEN}"


@dataclass(frozen=True)
class Colors:
    """A picture in RGB. `done`: what was done to its colors, empty for nothing; `problem`: what is wrong with them, as `kind: details`."""

    image: Image.Image
    done: str = ""
    problem: str = ""


def convert_colors(image: Image.Image, profile: bytes | None) -> Colors:
    """A picture of mode RGB, L or CMYK to RGB, by its profile.

    Without a profile, or with one of sRGB, the pixels stay as they are. The intent is what image editors have: relative colorimetric,
    black to black.
    """
    plain = image.convert("RGB")
    if not profile:
        return Colors(plain)
    # as browsers do: a profile for colors says of a gray picture how its gray is meant
    source = plain if image.mode == "L" and _read_space(profile) == "RGB" else image
    transform = _build_transform(profile, source.mode)
    if isinstance(transform, str):
        return Colors(plain, problem=f"{_UNUSABLE}: {transform}")
    if transform is None:
        return Colors(plain)
    converted = ImageCms.applyTransform(source, transform)
    assert converted is not None, "only with inPlace"
    return Colors(converted, CONVERTED)


def find_problem(image: Image.Image) -> str:
    """What a picture without a profile says of its colors that nothing here acts on; empty for nothing."""
    exif = image.getexif()
    facts = exif.get_ifd(ExifTags.IFD.Exif)
    names = exif.get_ifd(ExifTags.IFD.Interop) if ExifTags.IFD.Interop in facts else {}  # a KeyError in Pillow 12 where there is none
    is_adobe = str(names.get(ExifTags.Interop.InteropIndex, "")).startswith(_ADOBE) or facts.get(ExifTags.Base.ColorSpace) == _ADOBE_NUMBER
    if is_adobe:
        return f"Adobe RGB by EXIF, but without a profile, so {_TAKEN}"
    primaries = (image.info.get("nclx_profile") or {}).get("color_primaries")
    return f"wide colors by number, but without a profile, so {_TAKEN}" if primaries in _WIDE_PRIMARIES else ""


@lru_cache(_NUM_KEPT)
def _read_space(profile: bytes) -> str:
    """The color space of a profile; empty where it cannot be read."""
    try:
        return ImageCms.ImageCmsProfile(BytesIO(profile)).profile.xcolor_space.strip()
    except (OSError, ImageCms.PyCMSError):
        return ""


@lru_cache(_NUM_KEPT)
def _build_transform(profile: bytes, mode: str) -> ImageCms.ImageCmsTransform | str | None:
    """What makes sRGB of pixels of a mode; None where they are sRGB already; the reason where there is no such thing."""
    space = _read_space(profile)
    if not space:
        return "damaged"
    if space != _SPACES[mode]:
        return f"made for {space}, in a picture of {_SPACES[mode]}"
    try:
        transform = ImageCms.buildTransform(
            ImageCms.ImageCmsProfile(BytesIO(profile)),
            ImageCms.createProfile("sRGB"),
            mode,
            "RGB",
            ImageCms.Intent.RELATIVE_COLORIMETRIC,
            ImageCms.Flags.BLACKPOINTCOMPENSATION,
        )
    except (OSError, ImageCms.PyCMSError) as error:
        return " ".join(str(error).split()) or "damaged"
    return None if mode != "CMYK" and _keeps(transform, mode) else transform


def _keeps(transform: ImageCms.ImageCmsTransform, mode: str) -> bool:
    """Does it leave colors as they are?"""
    levels = np.linspace(0, 255, 17).astype(np.uint8)
    grid = np.arange(256, dtype=np.uint8)[None] if mode == "L" else np.stack(np.meshgrid(levels, levels, levels), axis=-1).reshape(1, -1, 3)
    sample = Image.fromarray(grid)
    converted = ImageCms.applyTransform(sample, transform)
    difference = np.asarray(converted, dtype=np.int16) - np.asarray(sample.convert("RGB"), dtype=np.int16)
    return bool(np.abs(difference).max() <= _TOLERANCE)
