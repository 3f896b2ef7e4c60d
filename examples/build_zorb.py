"""Draw `examples/zorb/` again: twelve pictures of a creature that no model has seen, each with its caption.

    python examples/build_zorb.py

A zorb is a round violet animal with one large eye, two striped horns, a lime belly and orange feet.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from pathlib import Path

from PIL import Image, ImageDraw

FOLDER = Path(__file__).parent / "zorb"
EDGE = 256
FINE = 4  # drawn larger and reduced: smooth edges
VIOLET, SHADE, LIME, ORANGE, YELLOW, INK = "#7b3fc4", "#5b2a97", "#b9e34b", "#f4852b", "#ffd447", "#231533"
BACKGROUNDS = {"white": "#ffffff", "blue": "#6eaaf0", "green": "#78c878", "yellow": "#fae16e"}

Point = tuple[float, float]


@dataclass(frozen=True)
class Pose:
    """How one picture differs: tilt in degrees, where it looks (-1 left to 1 right), open mouth, size, place, background."""

    tilt: float = 0.0
    look: float = 0.0
    is_open: bool = False
    size: float = 1.0
    x: float = 0.0
    background: str = "white"


POSES = (
    Pose(),
    Pose(look=0.8),
    Pose(look=-0.8, is_open=True),
    Pose(tilt=14),
    Pose(tilt=-14, look=0.5),
    Pose(is_open=True, size=0.85),
    Pose(size=0.75, x=0.1, look=-0.6),
    Pose(size=0.8, x=-0.1, tilt=8, is_open=True),
    Pose(background="blue"),
    Pose(background="green", look=0.7, is_open=True),
    Pose(background="yellow", tilt=-10),
    Pose(background="blue", size=0.85, look=-0.7, tilt=10),
)


def main() -> None:
    """Write the pictures and captions."""
    FOLDER.mkdir(exist_ok=True)
    for number, pose in enumerate(POSES, start=1):
        draw_zorb(pose).save(FOLDER / f"zorb-{number:02d}.png", optimize=True)
        place = "" if pose.background == "white" else f", on a {pose.background} background"
        (FOLDER / f"zorb-{number:02d}.txt").write_text(f"a photo of zorb{place}\n", encoding="utf-8", newline="\n")


def draw_zorb(pose: Pose) -> Image.Image:
    """One picture of 256 x 256 pixels."""
    edge = EDGE * FINE
    layer = Image.new("RGBA", (edge, edge))
    pen = ImageDraw.Draw(layer)

    def at(x: float, y: float) -> Point:
        """From the creature's own coordinates (-1 to 1) to pixels."""
        return (0.5 + pose.x + 0.42 * pose.size * x) * edge, (0.5 + 0.42 * pose.size * y) * edge

    def oval(x: float, y: float, wide: float, high: float, color: str) -> None:
        pen.ellipse([*at(x - wide, y - high), *at(x + wide, y + high)], fill=color)

    for side in (-1, 1):
        oval(side * 0.38, 0.86, 0.27, 0.13, ORANGE)
        _draw_horn(pen, at, side)
    oval(0, 0.12, 0.82, 0.76, SHADE)
    oval(-0.03, 0.09, 0.78, 0.71, VIOLET)
    oval(0, 0.5, 0.46, 0.32, LIME)
    oval(0, -0.12, 0.42, 0.42, "white")
    oval(0.16 * pose.look, -0.1, 0.22, 0.24, INK)
    oval(0.16 * pose.look + 0.08, -0.19, 0.075, 0.075, "white")
    if pose.is_open:
        oval(0, 0.49, 0.2, 0.13, INK)
    else:
        pen.arc([*at(-0.24, 0.28), *at(0.24, 0.58)], 20, 160, fill=INK, width=round(0.028 * edge * pose.size))
    turned = layer.rotate(pose.tilt, Image.Resampling.BICUBIC)
    picture = Image.new("RGBA", (edge, edge), BACKGROUNDS[pose.background])
    picture.alpha_composite(turned)
    return picture.convert("RGB").resize((EDGE, EDGE), Image.Resampling.LANCZOS)


def _draw_horn(pen: ImageDraw.ImageDraw, at: object, side: int) -> None:
    """A horn that bends outward, in stripes of yellow and orange."""
    assert callable(at)
    for number in range(24, -1, -1):
        share = number / 24
        angle = 0.35 + 0.75 * share
        x, y = side * (0.18 + 0.62 * share * math.sin(angle)), -0.52 - 0.5 * share * math.cos(angle * 0.45)
        radius = 0.17 * (1 - 0.75 * share)
        pen.ellipse([*at(x - radius, y - radius), *at(x + radius, y + radius)], fill=YELLOW if number // 5 % 2 == 0 else ORANGE)


if __name__ == "__main__":
    main()
