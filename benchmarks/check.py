"""How long `weber data check` takes over a folder of photographs, and how much of what was planted in it is found.

    python benchmarks/check.py [--pictures 5000] [--edge 1024] [--threads 1]

Pictures are JPEG files of soft colors, fine grain and a few shapes, each with a caption. Of every fifty one is a scaled copy of
another, one is blurred by 5 pixels and one saved at quality 10. Goal: 5,000 pictures of 1024 x 1024 pixels in at most 60 s on 2 cores.
"""

from __future__ import annotations

import argparse
import io
import tempfile
import time
from collections.abc import Sequence
from pathlib import Path

import machine
import numpy as np
from PIL import Image, ImageDraw, ImageFilter

from weber.config.data import DataConfig
from weber.data.sets import PictureLimits
from weber.progress import ignore_progress
from weber.tending.check import check_pictures
from weber.tending.findings import Limits
from weber.tending.looking import Look, look_at

GOAL_SECONDS, GOAL_PICTURES = 60.0, 5000
EVERY, BLUR_PIXELS = 50, 5
PLANTED = {1: "alike", 2: "blurred", 3: "artifacts"}
"""What is planted in one of fifty, by its place; what is alike has the picture before it as its original."""


def build_options() -> argparse.ArgumentParser:
    parser = machine.build_parser(__doc__)
    parser.add_argument("--pictures", type=machine.read_count, default=GOAL_PICTURES, help="pictures in the folder")
    parser.add_argument("--edge", type=machine.read_count, default=1024, help="pixels of their sides")
    return parser


def draw_picture(number: int, edge: int) -> Image.Image:
    """Unlike every other number's."""
    random = np.random.default_rng(number)
    colors = Image.fromarray(random.integers(30, 226, (5, 5, 3), dtype=np.uint8)).resize((edge, edge), Image.Resampling.BICUBIC)
    draw = ImageDraw.Draw(colors)
    for _ in range(6):
        left, top, width, height = random.integers(0, edge, 4) // np.array([1, 1, 3, 3])
        draw.ellipse((left, top, left + width + 8, top + height + 8), fill=tuple(random.integers(0, 256, 3).tolist()))
    grain = random.integers(-9, 10, (edge, edge, 1), dtype=np.int16)
    return Image.fromarray((np.asarray(colors, dtype=np.int16) + grain).clip(0, 255).astype(np.uint8))


def write_pictures(folder: Path, num: int, edge: int) -> None:
    """The folder that is looked at."""
    for number in range(num):
        kind, quality = PLANTED.get(number % EVERY), 92
        picture = draw_picture(number - (kind == "alike"), edge)
        if kind == "alike":
            picture = picture.resize((edge * 3 // 4, edge * 3 // 4), Image.Resampling.LANCZOS)
        elif kind == "blurred":
            picture = picture.filter(ImageFilter.GaussianBlur(BLUR_PIXELS))
        elif kind == "artifacts":
            quality = 10
        data = io.BytesIO()
        picture.save(data, "JPEG", quality=quality)
        (folder / f"{number:06}.jpg").write_bytes(data.getvalue())
        (folder / f"{number:06}.txt").write_text(f"picture {number}", encoding="utf-8")


def main(words: Sequence[str] | None = None) -> None:
    options = build_options().parse_args(words)
    machine.prepare(options)
    with tempfile.TemporaryDirectory() as place:
        folder = Path(place, "pictures")
        folder.mkdir()
        write_pictures(folder, options.pictures, options.edge)
        config = DataConfig(path=folder).build_fitting(native_pixels=options.edge, alignment_pixels=16)
        start, busy = time.perf_counter(), time.process_time()
        seen = look_at([config], Look(16, PictureLimits(), Path(place, "cache")), progress=ignore_progress)
        opened = time.perf_counter()
        checked = check_pictures(seen, Limits(), triggers={})
        end, busy = time.perf_counter(), time.process_time() - busy
    rate = options.pictures / (end - start)
    is_goal = (options.pictures, options.edge) == (GOAL_PICTURES, 1024)
    goal = f" (goal {GOAL_SECONDS:.0f} s)" if is_goal else ""
    print(f"{options.pictures} pictures of {options.edge} x {options.edge} pixels: {end - start:.1f} s, {rate:.0f} a second{goal}")
    print(f"looking {opened - start:.1f} s, comparing {end - opened:.1f} s; {1000 * busy / options.pictures:.0f} ms of processor for each")
    found = {one.kind: {item.place for item in one.items} for one in checked.found.findings}
    for place_in_fifty, kind in PLANTED.items():
        planted = set(range(place_in_fifty, options.pictures, EVERY))
        of_kind = found.get(kind, set())
        # of a copy and its original it is the smaller one that is named
        print(f"{kind}: {len(planted & of_kind)} of {len(planted)} found, {len(of_kind - planted)} others named")


if __name__ == "__main__":
    main()
