"""Pictures as an encoder sees them: a file, the window that is cut out of it, and what of it is to be painted anew."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import TypeVar

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from weber.data.backends.backend import Backend
from weber.data.backends.sources import LOCAL
from weber.data.buckets import Bucket
from weber.data.changes import paint_tint
from weber.data.crops import Crop, build_crops, check_shape
from weber.data.images import encode_content, read_colors, read_image
from weber.data.loss_masks import LossWindow, build_shares
from weber.data.masks import Mask, draw_mask, read_white
from weber.errors import DataError, MissingExtraError

_T = TypeVar("_T")
Size = tuple[int, int]
"""(width, height) in pixels."""


@dataclass(frozen=True, slots=True)
class View:
    """One window of one picture, alone or with a mask. `content` names the file's bytes, `color` what is done to its colors."""

    path: Path
    content: str
    crop: Crop
    mask: Mask | None = None
    color: str = ""

    def describe(self) -> str:
        """Canonical text for cache keys: everything that is done to the picture."""
        return " ".join(filter(None, (self.crop.describe(), self.color, "" if self.mask is None else self.mask.describe())))


def read_pixels(view: View, files: Backend = LOCAL) -> NDArray[np.uint8]:
    """Pixels (H, W, 3) of a view. Raises DataError if the file is no longer the one that was looked at."""
    image = _cut(read_image(_read_unchanged(view.path, view.content, files)), view.crop, Image.Resampling.LANCZOS)
    return np.array(paint_tint(image, view.crop.tint) if view.crop.tint else image)


def read_mask(view: View, files: Backend = LOCAL) -> NDArray[np.uint8]:
    """Mask (H, W) of a view that has one, for exactly its pixels: 255 = painted anew, 0 = kept. Raises DataError as `read_pixels`."""
    assert view.mask is not None
    if view.mask.path is None:
        return draw_mask(view.crop.width, view.crop.height, content=view.mask.content)
    mask = read_white(_read_unchanged(view.mask.path, view.mask.content, files))
    return np.array(_cut(mask.image, view.crop, Image.Resampling.NEAREST))


def read_loss_mask(window: LossWindow, files: Backend = LOCAL, *, shape: tuple[int, int]) -> NDArray[np.float32]:
    """How much of each of (H, W) cells of a window is learned, 0..1. Raises DataError as `read_pixels`."""
    return build_shares(_read_unchanged(window.mask.path, window.mask.content, files), window, shape=shape)


def build_view(path: Path, *, size: Size | Callable[[int, int], Size], mask: Path | None = None) -> View:
    """A file as it is, cut to `size` (or what that makes of its own width and height): resized to cover it, then the middle.

    Raises DataError, also for a mask of another shape than the picture.
    """
    data, colors = _open(path, read_colors)
    image, color = colors.image, colors.done
    width, height = size(*image.size) if callable(size) else size
    (crop,) = build_crops(*image.size, bucket=Bucket(width, height), style="center", num_crops=1, seed_parts=())
    if mask is None:
        return View(path, encode_content(data), crop, color=color)
    mask_data, white = _open(mask, read_white)
    try:
        check_shape(white.image.size, picture=image.size)
    except DataError as error:
        fix = "draw the mask over the whole picture, in any resolution"
        raise DataError(f'the mask "{mask}" does not fit the picture "{path}"', got=error.what, fix=fix) from error
    return View(path, encode_content(data), crop, Mask(mask, encode_content(mask_data), white.form, white.share), color)


def _open(path: Path, read: Callable[[bytes], _T]) -> tuple[bytes, _T]:
    try:
        data = LOCAL.read(path)
        return data, read(data)
    except (DataError, MissingExtraError) as error:
        fix = error.fix or "name another file, or mend this one"
        raise DataError(f'the picture "{path}" cannot be used', got=error.what, fix=fix) from error


def _read_unchanged(path: Path, content: str, files: Backend) -> bytes:
    try:
        data = files.read(path)
    except DataError as error:
        raise DataError(f'the picture "{path}" can no longer be read', got=error.what, fix="start again") from error
    if encode_content(data) != content:
        raise DataError(f'the picture "{path}" was changed while the run was starting', fix="start again; it is then read anew")
    return data


def _cut(image: Image.Image, crop: Crop, filter: Image.Resampling) -> Image.Image:
    resized = image.resize((crop.resize_width, crop.resize_height), filter)
    window = resized.crop((crop.left, crop.top, crop.left + crop.width, crop.top + crop.height))
    return window.transpose(Image.Transpose.FLIP_LEFT_RIGHT) if crop.is_mirrored else window
