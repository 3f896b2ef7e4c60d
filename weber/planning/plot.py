"""A picture of the noise levels that a run trains on, beside those that the sampler passes through."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from itertools import cycle

import torch
from PIL import Image, ImageDraw, ImageFont
from torch import Tensor

from weber.data.buckets import Bucket
from weber.objective.timesteps import build_timesteps, describe_law, is_shifted_by_tokens
from weber.planning.plan import Plan

WIDTH, PLOT_HEIGHT, MARGIN, ROW = 1200, 440, 70, 34
NUM_DRAWS, NUM_BINS = 2**18, 240
_NEAR = 1.1
HIGHEST = 8.0
"""Densities are cut here: some laws have poles."""
_SMOOTH = 3  # drawn this much larger, then reduced
_INK, _GRAY, _LIGHT = "#1b1b1f", "#74747c", "#e4e4e8"
_COLORS = ("#3457d5", "#d5533a", "#1f9e77", "#9a4fc4", "#c98a00", "#5b6b7a")


@dataclass(frozen=True)
class Curve:
    """What is trained at one size, or at all: density in each of `NUM_BINS`, or the share of each level; and the sampler's levels."""

    title: str
    color: str
    densities: tuple[float, ...]
    shares: dict[float, float]
    sigmas: tuple[float, ...]


def build_plot(plan: Plan) -> Image.Image:
    """The density of noise levels by the run's law, a curve for each size where it depends on that, and marks at the sampler's levels."""
    curves = list_curves(plan)
    height = 2 * MARGIN + 44 + PLOT_HEIGHT + ROW * (len(curves) + 1)
    sheet = Image.new("RGB", (_SMOOTH * WIDTH, _SMOOTH * height), "white")
    pen = _Pen(ImageDraw.Draw(sheet))
    top = MARGIN + 44
    pen.write((MARGIN, 20), "Noise levels that are trained", size=24)
    pen.write((MARGIN, 54), describe_law(plan.resolved.objective), size=16, color=_GRAY)
    highest = _draw_axes(pen, top, curves)
    for curve in curves:
        _draw_curve(pen, top, curve, highest=highest)
    _draw_sampler(pen, top + PLOT_HEIGHT + ROW + 14, curves)
    return sheet.resize((WIDTH, height), Image.Resampling.LANCZOS)


def list_curves(plan: Plan) -> list[Curve]:
    """One for all sizes, or where tokens shift the law one for all whose shifts differ by at most a tenth, at the commonest size."""
    objective, family = plan.resolved.objective, plan.family
    num_steps, by_tokens = plan.resolved.sampling.steps or family.sample_defaults.steps, is_shifted_by_tokens(objective)
    counts = plan.dataset.examples.count_uses()
    num_tokens = {one: family.num_tokens(*family.latent_shape(one.height, one.width)[1:]) for one in counts}
    groups: list[list[Bucket]] = []
    for bucket in sorted(counts, key=lambda one: (num_tokens[one], one)):
        if not groups or (by_tokens and family.shift(num_tokens[bucket]) > _NEAR * family.shift(num_tokens[groups[-1][0]])):
            groups.append([])
        groups[-1].append(bucket)
    uniforms = [(number + 0.5) / NUM_DRAWS for number in range(NUM_DRAWS)]
    curves = []
    for color, group in zip(cycle(_COLORS), groups, strict=False):
        bucket = max(group, key=lambda one: (counts[one], one))
        shift = family.shift(num_tokens[bucket])
        title = f"{bucket.width} x {bucket.height}" + (f" and {len(group) - 1} more" if len(group) > 1 else "")
        title += (f", shift {shift:.2f}" if by_tokens else "") + f": {num_steps} steps"
        densities, shares = _measure(build_timesteps(objective, uniforms, token_shift=shift))
        curves.append(Curve(title, color, densities, shares, tuple(family.sigmas(num_steps, num_tokens[bucket]))))
    return curves


def _measure(t: Tensor) -> tuple[tuple[float, ...], dict[float, float]]:
    """Densities, or for a law of few levels the share of each."""
    levels, counts = torch.unique(t, return_counts=True)
    if len(levels) < NUM_BINS:
        return (), dict(zip(levels.tolist(), (counts / len(t)).tolist(), strict=True))
    return tuple((torch.histc(t, NUM_BINS, 0, 1) * NUM_BINS / len(t)).tolist()), {}


@dataclass(frozen=True)
class _Pen:
    """Draws in the pixels of the finished picture."""

    draw: ImageDraw.ImageDraw

    def write(self, at: tuple[float, float], text: str, *, size: int, color: str = _INK, anchor: str = "la") -> None:
        font = ImageFont.load_default(_SMOOTH * size)
        self.draw.text((_SMOOTH * at[0], _SMOOTH * at[1]), text, color, font=font, anchor=anchor)

    def line(self, points: Sequence[tuple[float, float]], *, color: str, width: float = 1) -> None:
        scaled = [(_SMOOTH * x, _SMOOTH * y) for x, y in points]
        self.draw.line(scaled, color, width=round(_SMOOTH * width), joint="curve")


def _place(t: float) -> float:
    return MARGIN + t * (WIDTH - 2 * MARGIN)


def _draw_axes(pen: _Pen, top: float, curves: Sequence[Curve]) -> float:
    """Grid and labels; returns the value at the upper end."""
    is_discrete = bool(curves[0].shares)
    values = [value for curve in curves for value in (curve.shares.values() if is_discrete else curve.densities)]
    highest = min(HIGHEST, 1.08 * max(values))
    unit = next(step for step in (0.1, 0.2, 0.5, 1.0, 2.0) if highest / step <= 8)
    bottom = top + PLOT_HEIGHT
    for number in range(int(highest / unit) + 1):
        y = bottom - number * unit / highest * PLOT_HEIGHT
        pen.line([(MARGIN, y), (WIDTH - MARGIN, y)], color=_LIGHT)
        label = f"{number * unit:.0%}" if is_discrete else f"{number * unit:g}"
        pen.write((MARGIN - 10, y), label, size=14, color=_GRAY, anchor="rm")
    for number in range(11):
        pen.line([(_place(number / 10), top), (_place(number / 10), bottom)], color=_LIGHT)
        words = {0: "0 picture", 10: "1 pure noise"}.get(number, f"{number / 10:g}")
        pen.write((_place(number / 10), bottom + 8), words, size=14, color=_GRAY, anchor="ma")
    if not is_discrete and highest > 1:
        y = bottom - PLOT_HEIGHT / highest
        for number in range(0, 200, 2):
            pen.line([(_place(number / 200), y), (_place((number + 1) / 200), y)], color=_GRAY)
        pen.write((WIDTH - MARGIN + 8, y), "uniform", size=14, color=_GRAY, anchor="lm")
    pen.write((MARGIN, top - 8), "share of the draws" if is_discrete else "density", size=14, color=_GRAY, anchor="lb")
    return highest


def _draw_curve(pen: _Pen, top: float, curve: Curve, *, highest: float) -> None:
    bottom = top + PLOT_HEIGHT
    for level, share in curve.shares.items():
        x = _place(level)
        pen.line([(x, bottom), (x, bottom - share / highest * PLOT_HEIGHT)], color=curve.color, width=7)
    points = [
        (_place((number + 0.5) / NUM_BINS), bottom - min(1.0, density / highest) * PLOT_HEIGHT)
        for number, density in enumerate(curve.densities)
    ]
    if points:
        pen.line(points, color=curve.color, width=2.5)


def _draw_sampler(pen: _Pen, top: float, curves: Sequence[Curve]) -> None:
    """A row of marks for each curve, with its title above them."""
    pen.write((MARGIN, top - 2), "The sampler's own levels", size=16, color=_GRAY)
    for number, curve in enumerate(curves):
        y = top + 30 + number * ROW
        pen.line([(MARGIN, y + 16), (WIDTH - MARGIN, y + 16)], color=_LIGHT)
        for sigma in curve.sigmas[:-1]:
            pen.line([(_place(sigma), y + 9), (_place(sigma), y + 23)], color=curve.color, width=2.5)
        pen.write((MARGIN, y - 8), curve.title, size=14, color=curve.color)
