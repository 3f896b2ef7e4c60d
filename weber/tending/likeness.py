"""Which pictures are the same to the eye: scaled, saved again, brighter, cut a little at the edges, or mirrored."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from weber.tending.measures import Floats, Gray, Measures

MOST_BITS = 12
"""Of 63, by which the hashes of two pictures may differ that are then compared."""

MOST_DIFFERENCE = 0.3
"""Up to which pictures are the same: their largest difference anywhere, brightness and contrast apart, in standard deviations."""

ZOOMS = (0.0, 0.02, 0.04, 0.06)
"""Shares of the sides that one of the pictures may lack at each edge."""

_LEAST_COSINE = 0.75  # without zooming; what has less is not looked at any further
_NUM_PER_BLOCK = 256
_FLAT = 4.0  # levels: with less contrast brightness is all there is
_REACH = 2  # pixels of the small copies over which differences are averaged: of half a pixel at an edge nothing is left
_SHARE = 99  # percent: a spot of some pixels counts


class Pair(NamedTuple):
    """Two places of pictures that are the same, the first before the second."""

    first: int
    second: int
    is_mirrored: bool


def find_alike(measures: Sequence[Measures]) -> list[Pair]:
    """Pairs that join all pictures that are the same; of many that are, as a video's, not every pair is compared."""
    if len(measures) < 2:
        return []
    seen, mirrored = (np.array(one, dtype=np.uint64) for one in ([m.hash for m in measures], [m.mirrored for m in measures]))
    groups, found = _Groups(), list[Pair]()
    for is_mirrored, others in ((False, seen), (True, mirrored)):
        for first, second in _list_near(seen, others):
            if groups.find(first) != groups.find(second) and _is_same(measures[first].look, measures[second].look, is_mirrored):
                groups.join(first, second)
                found.append(Pair(first, second, is_mirrored))
    return sorted(found)


def group_pairs(pairs: Sequence[Pair]) -> list[list[int]]:
    """The places of pictures that hang together, each group sorted."""
    groups, found = _Groups(), dict[int, list[int]]()
    for pair in pairs:
        groups.join(pair.first, pair.second)
    for place in sorted({place for pair in pairs for place in pair[:2]}):
        found.setdefault(groups.find(place), []).append(place)
    return list(found.values())


class _Groups:
    """Places that are joined; a group is known by its first one."""

    def __init__(self) -> None:
        self._home: dict[int, int] = {}

    def find(self, place: int) -> int:
        while (home := self._home.get(place, place)) != place:
            self._home[place] = self._home.get(home, home)
            place = home
        return place

    def join(self, first: int, second: int) -> None:
        first, second = sorted((self.find(first), self.find(second)))
        self._home[second] = first


def measure_difference(first: Gray, second: Gray) -> float:
    """The largest difference of two small copies, whichever of them is cut a little at its edges."""
    aligned = (pair for zoom in ZOOMS for pair in ((_zoom(first, zoom), second), (first, _zoom(second, zoom)))[: 1 if zoom == 0 else 2])
    return min(_compare(_center(one), _center(two)) for one, two in aligned)


def _list_near(seen: NDArray[np.uint64], others: NDArray[np.uint64]) -> Iterator[tuple[int, int]]:
    for start in range(0, len(seen), _NUM_PER_BLOCK):
        bits = np.bitwise_count(seen[start : start + _NUM_PER_BLOCK, None] ^ others[None, start:])
        rows, columns = np.nonzero(bits <= MOST_BITS)
        yield from ((start + row, start + column) for row, column in zip(rows.tolist(), columns.tolist(), strict=True) if row < column)


def _is_same(first: Gray, second: Gray, is_mirrored: bool) -> bool:
    second = second[:, ::-1] if is_mirrored else second
    one, two = _center(first), _center(second)
    if min(one.std(), two.std()) < _FLAT:
        return float(np.abs(first.astype(np.float32) - second).max()) < _FLAT
    if (one * two).sum() < _LEAST_COSINE * np.sqrt((one * one).sum() * (two * two).sum()):
        return False
    return measure_difference(first, second) <= MOST_DIFFERENCE


def _center(look: Gray) -> Floats:
    levels: Floats = look.astype(np.float32)
    levels -= levels.mean()
    return levels


def _zoom(look: Gray, share: float) -> Gray:
    """Without that share of its sides at each edge, at the same size."""
    if share == 0:
        return look
    edge = len(look)
    box = (share * edge, share * edge, edge - share * edge, edge - share * edge)
    zoomed: Gray = np.asarray(Image.fromarray(np.ascontiguousarray(look)).resize((edge, edge), Image.Resampling.BILINEAR, box=box))
    return zoomed


def _compare(one: Floats, two: Floats) -> float:
    factor = float((one * two).sum() / max(float((two * two).sum()), 1e-6))
    spread = max(float(one.std()), factor * float(two.std()), _FLAT)
    edge, width = len(one), 2 * _REACH + 1
    padded = np.pad(one - factor * two, _REACH, mode="edge")
    smooth = sum(padded[y : y + edge, x : x + edge] for y in range(width) for x in range(width)) / width**2
    return float(np.percentile(np.abs(smooth), _SHARE)) / spread
