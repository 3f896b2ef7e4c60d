"""How a picture becomes the size of its bucket: resize, then cut out a window. Pure arithmetic."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from weber.config.data import CropStyle
from weber.data.buckets import Bucket
from weber.data.seeds import draw_choice

# Goes up with any change of the pixels that `read_image` or `read_pixels` make of the same file and crop.
_PIXELS_VERSION = 1


@dataclass(frozen=True, slots=True)
class Crop:
    """Resize the whole picture to `resize_width` x `resize_height`, then keep the window at `left`, `top`. In pixels."""

    resize_width: int
    resize_height: int
    left: int
    top: int
    width: int
    height: int

    def describe(self) -> str:
        """Canonical text for cache keys: everything that is done to the picture."""
        resize, window = f"{self.resize_width}x{self.resize_height}", f"{self.width}x{self.height}+{self.left}+{self.top}"
        return f"pixels {_PIXELS_VERSION} lanczos {resize} window {window}"


def build_crops(
    width: int, height: int, *, bucket: Bucket, style: CropStyle, num_crops: int, seed_parts: Sequence[int | str]
) -> tuple[Crop, ...]:
    """Windows of a picture, each of the bucket's size: `num_crops` (equal ones once) of the style `random`, else one.

    Random windows depend on `seed_parts` and the picture's and bucket's sizes alone.
    """
    if style == "off":
        return (Crop(bucket.width, bucket.height, 0, 0, bucket.width, bucket.height),)
    resize_width, resize_height = _cover(width, height, bucket)
    spare_width, spare_height = resize_width - bucket.width, resize_height - bucket.height
    if style == "random":
        corners = [
            (draw_choice(spare_width + 1, *seed_parts, n, "left"), draw_choice(spare_height + 1, *seed_parts, n, "top"))
            for n in range(num_crops)
        ]
    else:
        corners = [(spare_width // 2, spare_height // 2) if style == "center" else (0, 0)]
    return tuple(Crop(resize_width, resize_height, left, top, bucket.width, bucket.height) for left, top in dict.fromkeys(corners))


def _cover(width: int, height: int, bucket: Bucket) -> tuple[int, int]:
    """The smallest size of the picture's own aspect that covers the bucket, rounded half up."""
    if bucket.width * height >= bucket.height * width:
        return bucket.width, (2 * height * bucket.width + width) // (2 * width)
    return (2 * width * bucket.height + height) // (2 * height), bucket.height
