"""What one picture says of itself, in numbers: how it looks from afar, how sharp it is, what was done to it before it came here."""

from __future__ import annotations

from dataclasses import dataclass
from functools import lru_cache
from io import BytesIO
from math import cos, pi, sqrt

import numpy as np
from numpy.typing import NDArray
from PIL import Image, ImageChops

from weber.data.formats import open_picture

Gray = NDArray[np.uint8]
Floats = NDArray[np.float32]

SMALL_PIXELS = 256
"""Longer edge of the copy that is looked at for likeness and borders."""

FINE_PIXELS = 1024
"""Longer edge at which sharpness counts: that of most training pictures. Of larger ones a copy of that size is looked at."""

LOOK_EDGE = 32
"""Edge of the tiny gray copy by which pictures are compared."""

FRAME_EDGE = 128
"""Edge of the square copy in which marks are searched that several pictures have."""

_HASH_SIDE = 8
_SHARES = ((1, 0.001), (8, 0.004))
"""Pixels across which an edge is looked at, and the share of all that is the edges': across 8, where it is whole, it has more of them."""

_FAINTEST = 12  # levels: without any stronger step nothing is said of sharpness
_BLOCK = 8
_PART_PIXELS = 448  # edge of the middle in which blocks are looked for
_STEPS = (4, 20)  # levels: what is less cannot be seen, and what is more is an edge of the picture
_PLAIN_LEVELS = 10  # by which a plain border may vary
_ABRUPT_LEVELS = 16
_ABRUPT_SHARE, _LONE_SHARE = 0.85, 0.99
_THINNEST_SHARE = 0.02
_THUMB_PIXELS = 160

# ITU-T T.81, table K.1, as its values summed in zigzag order do not depend on that order.
_STANDARD = (
    *(16, 11, 10, 16, 24, 40, 51, 61, 12, 12, 14, 19, 26, 58, 60, 55, 14, 13, 16, 24, 40, 57, 69, 56, 14, 17, 22, 29, 51, 87, 80, 62),
    *(18, 22, 37, 56, 68, 109, 103, 77, 24, 35, 55, 64, 81, 104, 113, 92, 49, 64, 78, 87, 103, 121, 120, 101),
    *(72, 92, 95, 98, 112, 100, 103, 99),
)


@dataclass(frozen=True)
class Measures:
    """Of one picture. `hash` and `mirrored` are 63 bits each: how it looks, as it is and mirrored; `look` is a tiny gray copy (32, 32).

    `sharpness`: which share of its strongest edges one pixel has, 1 for edges of one pixel; None where it has none. `blocks`: the share
    of the borders of blocks of 8 pixels that can be seen. `quality`: of the JPEG file, 1 to 100; None for other files. `border`: shares of
    the sides (left, top, right, bottom) that are plain bars. `frame`: a gray square of 128 pixels, where it was kept. `thumb`: a JPEG
    file.
    """

    hash: int
    mirrored: int
    look: Gray
    sharpness: float | None
    blocks: float
    quality: int | None
    border: tuple[float, float, float, float]
    frame: Gray | None
    thumb: bytes


def measure_picture(image: Image.Image, data: bytes, *, has_frame: bool, has_thumb: bool) -> Measures:
    """`image` is what `data` holds, upright and in RGB."""
    gray = image.convert("L")
    small = _shrink(image, SMALL_PIXELS)
    look = np.asarray(small.convert("L").resize((LOOK_EDGE, LOOK_EDGE), Image.Resampling.BOX))
    seen, mirrored = build_hashes(look)
    frame = np.asarray(gray.resize((FRAME_EDGE, FRAME_EDGE), Image.Resampling.BOX)) if has_frame else None
    sharpness, blocks = measure_sharpness(_shrink(gray, FINE_PIXELS)), measure_blocks(gray)
    thumb = _build_thumb(small) if has_thumb else b""
    return Measures(seen, mirrored, look, sharpness, blocks, read_quality(data), find_borders(small), frame, thumb)


def build_hashes(look: Gray) -> tuple[int, int]:
    """63 bits of how a picture looks, and those of its mirror image: its 8 x 8 lowest frequencies against their median (pHash)."""
    waves = _build_waves()
    found = waves @ look.astype(np.float32) @ waves.T
    flipped = found * np.where(np.arange(_HASH_SIDE) % 2, -1, 1).astype(np.float32)
    return _read_bits(found), _read_bits(flipped)


def measure_sharpness(gray: Image.Image) -> float | None:
    """The share of the strongest steps across 8 pixels that one pixel makes, in the direction that has more of it."""
    shares = []
    for across in (True, False):
        size = (gray.width, max(1, gray.height // 2)) if across else (max(1, gray.width // 2), gray.height)
        part = gray.resize(size, Image.Resampling.NEAREST)  # every second line
        near, far = (_find_strong(_subtract(part, distance, across), share) for distance, share in _SHARES)
        if far >= _FAINTEST:
            shares.append(near / far)
    return max(shares, default=None)


def measure_blocks(gray: Image.Image) -> float:
    """At how many more of the places between pixels a step stands out in one of eight lines than in any other of them, in both directions:
    what is less counts."""
    left, top = max(0, (gray.width - _PART_PIXELS) // 2), max(0, (gray.height - _PART_PIXELS) // 2)
    part = gray.crop((left, top, min(gray.width, left + _PART_PIXELS), min(gray.height, top + _PART_PIXELS)))
    return min(_measure_phases(_subtract(part, 1, across), across) for across in (True, False))


def read_quality(data: bytes) -> int | None:
    """The quality with which libjpeg would have written a JPEG file's table of luminance; None for other files."""
    if not data.startswith(b"\xff\xd8"):
        return None
    with open_picture(data) as image:
        tables: dict[int, list[int]] = vars(image).get("quantization") or {}
    if 0 not in tables:
        return None
    scale = 100 * sum(tables[0]) / sum(_STANDARD)
    return round(max(1.0, min(100.0, (200 - scale) / 2 if scale <= 100 else 5000 / scale)))


def find_borders(small: Image.Image) -> tuple[float, float, float, float]:
    """Shares of the sides that are plain bars (left, top, right, bottom), 0 for none.

    A bar ends along a line at which the picture begins nearly everywhere: a thing before a plain ground has none.
    """
    pixels = np.asarray(small, dtype=np.int16)
    columns = pixels.transpose(1, 0, 2)
    left, top, right, bottom = (_find_bar(lines) for lines in (columns, pixels, columns[::-1], pixels[::-1]))
    kept = [_is_bar(*pair) for pair in ((left, right), (top, bottom), (right, left), (bottom, top))]
    return (left[0] * kept[0], top[0] * kept[1], right[0] * kept[2], bottom[0] * kept[3])


def _is_bar(bar: tuple[float, float], opposite: tuple[float, float]) -> bool:
    """By its thickness and the share of its line at which the picture begins; one without another opposite of it may be a ground."""
    has_other = opposite[0] > 0 and opposite[1] >= _ABRUPT_SHARE and max(bar[0], opposite[0]) <= 2 * min(bar[0], opposite[0])
    return bar[1] >= (_ABRUPT_SHARE if has_other else _LONE_SHARE)


def _find_bar(lines: NDArray[np.int16]) -> tuple[float, float]:
    color, most = np.median(lines[0], axis=0), len(lines) // 2
    if np.abs(lines[0] - color).max() > _PLAIN_LEVELS:
        return 0.0, 0.0
    distances = np.abs(lines[: most + 3] - color).max(axis=2)
    is_plain = distances.max(axis=1) <= _PLAIN_LEVELS
    ends = np.flatnonzero(~is_plain)
    thickness = int(ends[0]) if len(ends) else 0
    if thickness < max(3, _THINNEST_SHARE * len(lines)) or thickness > most:
        return 0.0, 0.0
    behind = distances[min(thickness + 2, len(distances) - 1)]
    return thickness / len(lines), float((behind > _ABRUPT_LEVELS).mean())


def _shrink(image: Image.Image, edge: int) -> Image.Image:
    factor = max(image.size) / edge
    if factor <= 1:
        return image
    size = (max(1, round(image.width / factor)), max(1, round(image.height / factor)))
    return image.resize(size, Image.Resampling.BOX, reducing_gap=1.5)


def _subtract(gray: Image.Image, distance: int, across: bool) -> Image.Image:
    """Between pixels that far from each other, how many levels there are."""
    width, height = gray.size
    right, down = (distance, 0) if across else (0, distance)
    if width <= right or height <= down:
        return Image.new("L", (1, 1))
    return ImageChops.difference(gray.crop((0, 0, width - right, height - down)), gray.crop((right, down, width, height)))


def _find_strong(steps: Image.Image, share: float) -> int:
    """The level above which only that share of the steps is."""
    counts = steps.histogram()
    left = sum(counts) * share
    for level in range(255, 0, -1):
        left -= counts[level]
        if left <= 0:
            return level
    return 0


def _measure_phases(steps: Image.Image, across: bool) -> float:
    levels = np.asarray(steps) if across else np.asarray(steps).T
    if levels.shape[1] < 4 * _BLOCK:
        return 0.0
    inner = levels[:, 1:-1]
    stands_out = (inner >= _STEPS[0]) & (inner <= _STEPS[1]) & (inner // 2 >= np.maximum(levels[:, :-2], levels[:, 2:]))
    shares = stands_out.mean(axis=0)
    phases = np.sort([shares[phase::_BLOCK].mean() for phase in range(_BLOCK)])
    return float(phases[-1] - phases[-2])


def _read_bits(found: Floats) -> int:
    values = found.ravel()[1:]  # the mean brightness says nothing
    return int.from_bytes(np.packbits(values > np.median(values)).tobytes(), "big")


@lru_cache(maxsize=1)
def _build_waves() -> Floats:
    """The lowest frequencies of the cosine transform (8, 32)."""
    rows = [
        [sqrt(2 / LOOK_EDGE) * cos(pi * (2 * place + 1) * wave / (2 * LOOK_EDGE)) for place in range(LOOK_EDGE)]
        for wave in range(_HASH_SIDE)
    ]
    return np.array(rows, dtype=np.float32)


def _build_thumb(small: Image.Image) -> bytes:
    image, data = small.copy(), BytesIO()
    image.thumbnail((_THUMB_PIXELS, _THUMB_PIXELS))
    image.save(data, "JPEG", quality=72)
    return data.getvalue()
