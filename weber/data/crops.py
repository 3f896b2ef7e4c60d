"""How a picture becomes the size of its bucket: resize, then cut out a window. Pure arithmetic."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from functools import lru_cache

from weber.config.data import CropStyle
from weber.data.buckets import Bucket
from weber.data.seeds import draw_choice
from weber.errors import DataError

# Goes up with any change of the pixels that `read_image` or `read_pixels` make of the same file and crop.
_PIXELS_VERSION = 1


@dataclass(frozen=True, slots=True)
class Crop:
    """Resize the whole picture to `resize_width` x `resize_height`, then keep the window at `left`, `top`. In pixels.

    What is done to that: `tint` says in words which colors it gets, and `is_mirrored` that left becomes right.
    """

    resize_width: int
    resize_height: int
    left: int
    top: int
    width: int
    height: int
    is_mirrored: bool = False
    tint: str = ""

    def describe(self) -> str:
        """Canonical text for cache keys: everything that is done to the picture."""
        numbers = (self.resize_width, self.resize_height, self.left, self.top, self.width, self.height)
        return describe_changes(describe_crop(numbers), is_mirrored=self.is_mirrored, tint=self.tint)


@lru_cache(maxsize=65536)
def describe_crop(numbers: tuple[int, ...]) -> str:
    """See `Crop.describe`; of the numbers of a crop in their order."""
    resize_width, resize_height, left, top, width, height = numbers
    return f"pixels {_PIXELS_VERSION} lanczos {resize_width}x{resize_height} window {width}x{height}+{left}+{top}"


@dataclass(frozen=True, slots=True)
class Placement:
    """The size of a training picture, and the one that the whole picture is resized to, which covers it."""

    bucket: Bucket
    resize_width: int
    resize_height: int


def cover(width: int, height: int, *, bucket: Bucket) -> Placement:
    """A picture of (width, height) in its own shape, no larger than it has to be."""
    return Placement(bucket, *_cover(width, height, bucket))


def describe_changes(crop: str, *, is_mirrored: bool, tint: str) -> str:
    """The words for a crop with those for what is done to it."""
    return " ".join(filter(None, (crop, tint, "mirrored" if is_mirrored else "")))


def build_crops(
    width: int, height: int, *, bucket: Bucket, style: CropStyle, num_crops: int, seed_parts: Sequence[int | str]
) -> tuple[Crop, ...]:
    """Windows of a picture, each of the bucket's size: `num_crops` (equal ones once) of the style `random`, else one.

    Random windows depend on `seed_parts` and the picture's and bucket's sizes alone.
    """
    return cut_crops(cover(width, height, bucket=bucket), style=style, num_crops=num_crops, seed_parts=seed_parts)


def cut_crops(
    placed: Placement,
    *,
    style: CropStyle,
    num_crops: int,
    seed_parts: Sequence[int | str],
    face: tuple[float, float] | None = None,
) -> tuple[Crop, ...]:
    """As `build_crops`, of a picture that was placed. `face` is the center of one, in shares of the sides, for the style `face`."""
    bucket, resize_width, resize_height = placed.bucket, placed.resize_width, placed.resize_height
    if style == "off":
        return (Crop(bucket.width, bucket.height, 0, 0, bucket.width, bucket.height),)
    spare_width, spare_height = resize_width - bucket.width, resize_height - bucket.height
    if style == "random":
        corners = [
            (draw_choice(spare_width + 1, *seed_parts, n, "left"), draw_choice(spare_height + 1, *seed_parts, n, "top"))
            for n in range(num_crops)
        ]
    elif style == "face" and face is not None:
        left, top = round(face[0] * resize_width - bucket.width / 2), round(face[1] * resize_height - bucket.height / 2)
        corners = [(min(max(0, left), spare_width), min(max(0, top), spare_height))]
    else:
        corners = [(spare_width // 2, spare_height // 2) if style != "corner" else (0, 0)]
    return tuple(Crop(resize_width, resize_height, left, top, bucket.width, bucket.height) for left, top in dict.fromkeys(corners))


def check_shape(size: tuple[int, int], *, picture: tuple[int, int]) -> None:
    """Raise DataError with a one-line reason unless that (width, height) is the picture's own in any resolution."""
    if not _fits(size, picture):
        raise DataError(f"another shape: {size[0]} x {size[1]} pixels, its picture {picture[0]} x {picture[1]}")


def build_reference_crop(width: int, height: int, *, crop: Crop, picture: tuple[int, int]) -> Crop:
    """The same window, of a reference of that many pixels, as `crop` is of its `picture` (width, height).

    A reference of the picture's shape is resized to the same size; any other one so that it covers that size, of which its middle
    then takes the place.
    """
    if _fits((width, height), picture):
        return crop
    resize_width, resize_height = _cover(width, height, Bucket(crop.resize_width, crop.resize_height))
    left = crop.left + (resize_width - crop.resize_width) // 2
    top = crop.top + (resize_height - crop.resize_height) // 2
    return Crop(resize_width, resize_height, left, top, crop.width, crop.height, crop.is_mirrored, crop.tint)


def _cover(width: int, height: int, bucket: Bucket) -> tuple[int, int]:
    """The smallest size of the picture's own aspect that covers the bucket, rounded half up."""
    if bucket.width * height >= bucket.height * width:
        return bucket.width, (2 * height * bucket.width + width) // (2 * width)
    return (2 * width * bucket.height + height) // (2 * height), bucket.height


def _fits(size: tuple[int, int], other: tuple[int, int]) -> bool:
    """Are both the same shape, but for the rounding of their sides?"""
    return abs(size[0] * other[1] - size[1] * other[0]) <= max(sum(size), sum(other))
