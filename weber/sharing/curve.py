"""The loss of a run as a picture."""

from __future__ import annotations

from collections.abc import Sequence

from PIL import Image, ImageDraw, ImageFont

WIDTH, HEIGHT, MARGIN = 1000, 420, 64
MOST_POINTS = 400
"""Of longer curves a point is a mean."""
_SMOOTH = 2  # drawn this much larger, then reduced
_SHARE = 0.06
"""Of all points, over which the thick line is a mean."""
_INK, _GRAY, _LIGHT, _PALE, _LINE = "#1b1b1f", "#74747c", "#e4e4e8", "#b9c6f2", "#3457d5"

Point = tuple[float, float]


def build_curve(points: Sequence[Point], *, title: str) -> Image.Image:
    """Step and loss as a thin line, and their mean over the neighbors as a thick one."""
    points = _reduce(points)
    smooth = _average(points)
    sheet = Image.new("RGB", (_SMOOTH * WIDTH, _SMOOTH * HEIGHT), "white")
    draw = ImageDraw.Draw(sheet)
    font = ImageFont.load_default(_SMOOTH * 15)
    draw.text((_SMOOTH * MARGIN, _SMOOTH * 20), title, _INK, font=ImageFont.load_default(_SMOOTH * 20))
    low, high = _find_range([value for _, value in points])
    first, last = points[0][0], max(points[-1][0], points[0][0] + 1)

    def place(point: Point) -> Point:
        x = MARGIN + (point[0] - first) / (last - first) * (WIDTH - 2 * MARGIN)
        share = min(1.0, max(0.0, (point[1] - low) / (high - low)))
        return _SMOOTH * x, _SMOOTH * (HEIGHT - MARGIN - share * (HEIGHT - 2 * MARGIN))

    for number in range(5):
        value = low + number / 4 * (high - low)
        left, right = place((first, value)), place((last, value))
        draw.line([left, right], _LIGHT, _SMOOTH)
        draw.text((left[0] - _SMOOTH * 8, left[1]), f"{value:.3g}", _GRAY, font=font, anchor="rm")
        step = round(first + number / 4 * (last - first))
        below = place((step, low))
        draw.text((below[0], below[1] + _SMOOTH * 12), f"{step}", _GRAY, font=font, anchor="ma")
    for line, color, width in ((points, _PALE, 1), (smooth, _LINE, 3)):
        if len(line) > 1:
            draw.line([place(point) for point in line], color, _SMOOTH * width, joint="curve")
    return sheet.resize((WIDTH, HEIGHT), Image.Resampling.LANCZOS)


def _reduce(points: Sequence[Point]) -> list[Point]:
    size = -(-len(points) // MOST_POINTS)
    portions = [points[start : start + size] for start in range(0, len(points), size)]
    return [(one[-1][0], sum(value for _, value in one) / len(one)) for one in portions]


def _average(points: Sequence[Point]) -> list[Point]:
    reach = max(1, round(_SHARE * len(points) / 2))
    near = [points[max(0, number - reach) : number + reach + 1] for number in range(len(points))]
    return [(step, sum(value for _, value in some) / len(some)) for (step, _), some in zip(points, near, strict=True)]


def _find_range(values: Sequence[float]) -> tuple[float, float]:
    """Where nearly all values are: single ones far above would make the rest a flat line."""
    ordered = sorted(values)
    low, high = ordered[0], ordered[min(len(ordered) - 1, int(0.98 * len(ordered)))]
    return (low, high) if high > low else (low - 0.5, low + 0.5)
