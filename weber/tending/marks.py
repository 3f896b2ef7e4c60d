"""A mark that several pictures have at the same place: the signature, logo or watermark that training would teach the model to paint."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from weber.tending.measures import FRAME_EDGE, Floats, Gray

LEAST_PICTURES = 8
"""Of fewer nothing can be said: things may lie at the same place by chance."""

LEAST_SHARE = 0.25
"""Of the pictures of a set that have to have it."""

_CANDIDATE, _CERTAIN = 0.27, 0.6  # how alike slopes at a place are over all pictures, and over those that have the mark; 1 is the same
_CHANCE = 1.6  # over the square root of how many pictures there are: what is that much alike by chance
_FEWEST_PLACES = 14  # of the 128 x 128: what is smaller is no mark that could be read
_LARGEST_SHARE = 0.1  # of the picture: what is larger is the picture
_FAINT_LEVELS = 6.0  # of a slope that counts half
_AGREEMENT = 0.4  # of a picture with the mark
_NUM_ROUNDS = 4
_FACTORS = (1.0, 1.5, 2.0, 2.6)  # where a mark touches what pictures show, it stands out at one of these
_THINNEST = 4  # places
_ONE_SIDED, _ONE_WAY = 0.5, 0.08
_REACH = 3  # places across which parts of a mark hang together

Mask = NDArray[np.bool_]


@dataclass(frozen=True)
class Mark:
    """`box`: (left, top, right, bottom) as shares of the sides; `places`: of the pictures that have it."""

    box: tuple[float, float, float, float]
    places: tuple[int, ...]


def find_mark(frames: Sequence[Gray]) -> Mark | None:
    """The mark that most of a set of pictures have, given as gray squares; None for none."""
    if len(frames) < LEAST_PICTURES:
        return None
    slopes = np.stack([_build_slopes(frame) for frame in frames])
    mean: Floats = slopes.mean(axis=0, dtype=np.float32)
    least, strength = max(_CANDIDATE, _CHANCE / float(np.sqrt(len(frames)))), np.hypot(mean[0], mean[1])
    regions = (region for factor in _FACTORS for region in _list_regions(strength >= least * factor))
    found = (_refine(region, slopes) for region in regions if _is_small(region))
    return max((mark for mark in found if mark is not None), key=lambda mark: len(mark.places), default=None)


def _build_slopes(frame: Gray) -> Floats:
    """Where it gets brighter, and how clearly (2, 128, 128): at most 1."""
    levels, slopes = frame.astype(np.float32), np.zeros((2, FRAME_EDGE, FRAME_EDGE), dtype=np.float32)
    slopes[0, :, 1:-1] = (levels[:, 2:] - levels[:, :-2]) / 2
    slopes[1, 1:-1] = (levels[2:] - levels[:-2]) / 2
    found: Floats = slopes / (np.hypot(slopes[0], slopes[1]) + np.float32(_FAINT_LEVELS))
    return found


def _refine(region: Mask, slopes: Floats) -> Mark | None:
    """The pictures that agree with what they have there in common, chosen anew until they do not change."""
    inside = slopes[:, :, region]
    chosen = np.ones(len(slopes), dtype=bool)
    for _ in range(_NUM_ROUNDS):
        mean = inside[chosen].mean(axis=0)
        lengths = np.sqrt((inside * inside).sum(axis=(1, 2)) * float((mean * mean).sum())) + 1e-6
        agreement = (inside * mean).sum(axis=(1, 2)) / lengths
        chosen = agreement >= _AGREEMENT
        if chosen.sum() < max(LEAST_PICTURES, LEAST_SHARE * len(slopes)):
            return None
    common = slopes[chosen].mean(axis=0)
    is_alike = np.hypot(common[0], common[1]) >= _CERTAIN
    is_certain = region & is_alike
    left, top, right, bottom = _find_box(region)
    is_alike[max(0, top - _REACH) : bottom + _REACH, max(0, left - _REACH) : right + _REACH] = False
    if is_certain.sum() < max(_FEWEST_PLACES, 2 * is_alike.sum()) or not _is_drawn(common[:, is_certain]):
        return None  # too little, or the same thing in the same place on all
    left, top, right, bottom = _find_box(is_certain)
    if min(right - left, bottom - top) < _THINNEST:
        return None
    box = (left / FRAME_EDGE, top / FRAME_EDGE, right / FRAME_EDGE, bottom / FRAME_EDGE)
    return Mark(box, tuple(np.flatnonzero(chosen).tolist()))


def _is_drawn(slopes: Floats) -> bool:
    """Do slopes go both up and down, and in more than one direction? An edge that things have in common does not."""
    lengths = np.hypot(slopes[0], slopes[1]).sum()
    is_balanced = float(np.hypot(*slopes.sum(axis=1)) / lengths) <= _ONE_SIDED
    spread = np.linalg.eigvalsh(slopes @ slopes.T)
    return is_balanced and bool(spread[0] >= _ONE_WAY * spread[1])


def _is_small(region: Mask) -> bool:
    left, top, right, bottom = _find_box(region)
    return region.sum() >= _FEWEST_PLACES and (right - left) * (bottom - top) <= _LARGEST_SHARE * FRAME_EDGE**2


def _find_box(region: Mask) -> tuple[int, int, int, int]:
    rows, columns = np.flatnonzero(region.any(axis=1)), np.flatnonzero(region.any(axis=0))
    return int(columns[0]), int(rows[0]), int(columns[-1]) + 1, int(rows[-1]) + 1


def _list_regions(places: Mask) -> Iterator[Mask]:
    """What hangs together of some places."""
    left = {(int(row), int(column)) for row, column in np.argwhere(places)}
    while left:
        region = np.zeros_like(places)
        waiting = [left.pop()]
        while waiting:
            row, column = waiting.pop()
            region[row, column] = True
            near = {
                (row + down, column + right)
                for down in range(-_REACH, _REACH + 1)
                for right in range(-_REACH, _REACH + 1)
                if (row + down, column + right) in left
            }
            left -= near
            waiting += near
        yield region
