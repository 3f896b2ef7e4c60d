"""Laws that are known by their density: tables of their distribution function, and its inverse.

Legend: B draws, K knots, P points.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from functools import lru_cache

import torch
from torch import Tensor

NUM_POINTS = 2**15
"""Per side of the mode, or over the whole range: beta's inverse is then right to 1e-7, as closed forms show."""
_LOWEST = -45.0
"""Logarithm of the density, relative to its highest, where tails are cut: they hold less than 2**-53, the smallest draw."""


@dataclass(frozen=True)
class Table:
    """A density (P,) at rising points (P,), of any scale and linear between them, and its integral (P,) from the first one on."""

    points: Tensor
    densities: Tensor
    integral: Tensor


def build_table(points: Tensor, densities: Tensor) -> Table:
    """Both (P,) fp64; the densities are 0 or more, and not all 0."""
    integral = torch.cumulative_trapezoid(densities, points)
    return Table(points, densities, torch.cat([integral.new_zeros(1), integral]))


def draw_points(table: Table, uniform_B: Tensor) -> Tensor:
    """Inverse of the distribution function at draws (B,) in 0..1, exact for a density that is linear between the points."""
    wanted = uniform_B * table.integral[-1]
    cell = (torch.searchsorted(table.integral, wanted, right=True) - 1).clamp(0, len(table.points) - 2)
    rest = wanted - table.integral[cell]
    width, low = table.points[cell + 1] - table.points[cell], table.densities[cell]
    slope = (table.densities[cell + 1] - low) / width
    root = (low.square() + 2 * slope * rest).clamp(min=0).sqrt()
    return table.points[cell] + (2 * rest / (low + root).clamp(min=torch.finfo(torch.float64).tiny)).clamp(max=width)


@lru_cache(maxsize=4)
def build_beta(a: float, b: float) -> Table:
    """Of x = logit(t) for t by the beta law: its density t^a (1 - t)^b, unlike that of t, is smooth and has no poles."""
    mode = math.log(a / b)
    highest = _log_beta(mode, a, b)
    sides = []
    for way in (-1, 1):
        reach = 1e-6
        while _log_beta(mode + way * reach, a, b) - highest > _LOWEST:
            reach *= 2
        sides.append(torch.linspace(0, reach, NUM_POINTS, dtype=torch.float64))
    points = mode + torch.cat([-sides[0].flip(0), sides[1][1:]])
    logs = a * torch.nn.functional.logsigmoid(points) + b * torch.nn.functional.logsigmoid(-points)
    return build_table(points, (logs - highest).exp())


@lru_cache(maxsize=4)
def build_cubic(weights: Sequence[float]) -> Table:
    """Of t in 0..1, by densities (K,) at equal distances and a curve between them; one of them is the uniform law."""
    knots = torch.tensor(weights if len(weights) > 1 else [1.0, 1.0], dtype=torch.float64)
    per_piece = -(-NUM_POINTS // (len(knots) - 1))
    points = torch.linspace(0, 1, per_piece * (len(knots) - 1) + 1, dtype=torch.float64)
    return build_table(points, _interpolate(knots, points))


def _log_beta(x: float, a: float, b: float) -> float:
    return -a * _softplus(-x) - b * _softplus(x)


def _softplus(x: float) -> float:
    return max(x, 0.0) + math.log1p(math.exp(-abs(x)))


def _interpolate(knots: Tensor, points: Tensor) -> Tensor:
    """Cubic Hermite curve (P,) through knots (K,) at equal distances over 0..1, which never leaves the range of its two neighbors.

    Fritsch and Carlson 1980 with the slopes of Fritsch and Butland 1984, as scipy's PchipInterpolator.
    """
    rises = knots.diff()  # per piece, so that a piece is 1 wide
    before, after = rises[:-1], rises[1:]
    inner = torch.where(before * after > 0, 2 * before * after / (before + after), 0.0)
    slopes = torch.cat([_end_slope(rises), inner, _end_slope(rises.flip(0))])
    place = points * len(rises)
    piece = place.long().clamp(max=len(rises) - 1)
    s = place - piece
    low, high, start, end = knots[piece], knots[piece + 1], slopes[piece], slopes[piece + 1]
    curve = low + s * (start + s * (3 * (high - low) - 2 * start - end + s * (start + end - 2 * (high - low))))
    return curve.clamp(min=0)  # against rounding


def _end_slope(rises: Tensor) -> Tensor:
    """(1,) by three points, kept from overshooting."""
    if len(rises) == 1:
        return rises[:1]
    first, second = rises[:1], rises[1:2]
    slope = (3 * first - second) / 2
    slope = torch.where(first * second < 0, slope.clamp(-3 * first.abs(), 3 * first.abs()), slope)
    return torch.where(slope * first > 0, slope, 0.0)
