"""How much of painted pictures is noise, and how alike they are: plain arithmetic on their pixels, without any model."""

from __future__ import annotations

from collections.abc import Sequence
from itertools import combinations
from pathlib import Path

import numpy as np
from numpy.typing import NDArray
from PIL import Image

_EDGE, _REDUCED = 16, 4
_FLAT = 1.0
_WHITE = 2 / np.sqrt(np.pi)
"""What neighbors of white noise differ by on average, as a share of its deviation."""


def measure_noise(files: Sequence[Path]) -> float:
    """The mean over pictures of how much neighbors differ beside the whole: about 1 in noise, 0.1 to 0.3 in most pictures. They are seen
    at a quarter of their size, because what decoders make of noise is smooth from pixel to pixel."""
    return float(np.mean([_measure_noise(file) for file in files]))


def measure_likeness(files: Sequence[Path]) -> float:
    """The mean correlation of all pairs, seen small: 1 where all are one picture."""
    small = [_read_small(file) for file in files]
    return float(np.mean([_correlate(one, other) for one, other in combinations(small, 2)]))


def _measure_noise(file: Path) -> float:
    with Image.open(file) as image:
        small = image.convert("RGB").reduce(_REDUCED)
    pixels = np.asarray(small, dtype=np.float64)
    steps = (np.abs(np.diff(pixels, axis=0)).mean() + np.abs(np.diff(pixels, axis=1)).mean()) / 2
    return float(steps / max(pixels.std(axis=(0, 1)).mean(), _FLAT) / _WHITE)


def _read_small(file: Path) -> NDArray[np.float64]:
    with Image.open(file) as image:
        return np.asarray(image.convert("RGB").resize((_EDGE, _EDGE), Image.Resampling.BOX), dtype=np.float64).reshape(-1)


def _correlate(one: NDArray[np.float64], other: NDArray[np.float64]) -> float:
    """Two flat pictures are alike if their colors are."""
    if min(one.std(), other.std()) < _FLAT:
        return float(np.abs(one - other).mean() < _FLAT)
    return float(np.corrcoef(one, other)[0, 1])
