"""Masks for the loss: white is learned, black and transparent are not, gray in between. From a file, or a picture's alpha channel."""

from __future__ import annotations

from dataclasses import dataclass, field, replace
from pathlib import Path

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from weber.data.crops import Crop
from weber.data.images import read_alpha
from weber.data.levels import read_levels

# Goes up with any change of the numbers that the same file and window become.
_VERSION = 1

Floats = NDArray[np.float64]


@dataclass(frozen=True, slots=True)
class LossMask:
    """A file, whose bytes `content` names: a mask, or with `is_alpha` the picture itself.

    `form`: see `Levels`. `share`: how much of the whole picture is learned, 0..1.
    """

    path: Path
    content: str
    is_alpha: bool = False
    form: str = ""
    share: float = field(default=1.0, compare=False)


@dataclass(frozen=True, slots=True)
class LossWindow:
    """What of a mask belongs to one window of its picture."""

    mask: LossMask
    crop: Crop

    def describe(self) -> str:
        """Canonical text for cache keys: everything that is done to the mask, but for the size that it gets."""
        crop = replace(self.crop, tint="").describe()
        return f"loss mask {_VERSION} {'alpha' if self.mask.is_alpha else self.mask.form or 'gray'} {crop}"


def find_box(image: Image.Image | None) -> tuple[int, ...] | None:
    """The box (left, top, right, bottom) of all that is learned at all, () for nothing; None where all of the picture is learned fully."""
    if image is None or image.getextrema() == (255, 255):
        return None
    return image.getbbox() or ()


def shows(crop: Crop, *, box: tuple[int, ...], size: tuple[int, int]) -> bool:
    """Does something of that box of a mask of `size` (width, height) lie inside of the window?"""
    if not box:
        return False
    across, down = _find_edges(crop, size, shape=(1, 1))
    return bool(across[0] < box[2] and across[1] > box[0] and down[0] < box[3] and down[1] > box[1])


def build_shares(data: bytes, window: LossWindow, *, shape: tuple[int, int]) -> NDArray[np.float32]:
    """How much of each of (H, W) cells of the window is learned, 0..1: the exact mean of the mask over the area of the cell.

    Raises DataError with a one-line reason.
    """
    image = read_alpha(data) if window.mask.is_alpha else read_levels(data).image
    assert image is not None, "a picture without an alpha channel has no such mask"
    across, down = _find_edges(window.crop, image.size, shape=shape)
    pixels, weights = np.asarray(image), _build_means(down, image.height)
    # one row of cells at a time: the whole picture as numbers of 64 bits would be eight times as large
    spans = zip(np.floor(down[:-1]).astype(int), np.ceil(down[1:]).astype(int), weights, strict=True)
    rows = np.stack([weight[first:stop] @ pixels[first:stop] for first, stop, weight in spans])
    shares = np.clip(rows @ _build_means(across, image.width).T / 255, 0, 1).astype(np.float32)
    return np.ascontiguousarray(shares[:, ::-1]) if window.crop.is_mirrored else shares


def _find_edges(crop: Crop, size: tuple[int, int], *, shape: tuple[int, int]) -> tuple[Floats, Floats]:
    """The edges (W + 1,) and (H + 1,) of the window's cells, in pixels of a mask of `size`."""
    across = crop.left + np.arange(shape[1] + 1) * (crop.width / shape[1])
    down = crop.top + np.arange(shape[0] + 1) * (crop.height / shape[0])
    return across * size[0] / crop.resize_width, down * size[1] / crop.resize_height


def _build_means(edges: Floats, num_pixels: int) -> Floats:
    """(cells, pixels): the share that each pixel has of each cell."""
    pixels = np.arange(num_pixels)
    covered = np.minimum(edges[1:, None], pixels + 1) - np.maximum(edges[:-1, None], pixels)
    shares: Floats = np.maximum(covered, 0) / np.diff(edges)[:, None]
    return shares
