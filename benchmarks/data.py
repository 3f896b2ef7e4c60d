"""Datasets of a million pictures without a picture: opening them, planning an epoch, and the whole plan of a run; and files that are known.

    python benchmarks/data.py [--pictures 1000000] [--files 100000] [--rounds 3] [--folder FOLDER] [--threads 1]

The pictures are columns as `build_dataset` keeps them, of two sets and five buckets, with a caption each; nothing lies behind their names.
Each part runs in a process of its own; its memory is what its pages have grown by, without those of mapped files, or the most that it had
at once, with those. Goals: opening at most 0.5 s and 64 bytes a picture, an epoch's plan at most 2 s and 100 MB, the whole `weber plan` of
`pocket` at most 15 s and 1 GB with all pages. Samples of `pocket` are read from the cache as steps do: at least 5,000 a second. Then half
as many pictures as files, each with a caption file, are found in a folder of which all is known: 100,000 files in at most 5 s. Last, with
everything in the cache, one caption is edited: one text is encoded, once for each text encoder.
"""

from __future__ import annotations

import argparse
import gc
import io
import json
import tempfile
import time
from collections.abc import Callable, Sequence
from hashlib import blake2b
from importlib import import_module
from itertools import islice
from pathlib import Path
from statistics import median
from unittest.mock import patch

import machine
import numpy as np
import psutil
import torch
from PIL import Image

from weber.cache.catalog import draw_shard_name
from weber.cache.key import build_text_key
from weber.cache.shard import write_shard
from weber.cache.store import Store
from weber.config.data import DataConfig
from weber.config.load import build_config
from weber.data.batches import BatchPlan
from weber.data.build import build_dataset
from weber.data.columns import TextPacker, build_columns, read_columns, write_columns
from weber.data.dataset import Dataset
from weber.data.pictures import Part, Pictures, Shared
from weber.data.sets import PictureLimits
from weber.planning.plan import Plan, build_plan
from weber.planning.report import build_report
from weber.progress import ignore_progress
from weber.track.progress import Watcher, build_console
from weber.training.assemble import encode_cache
from weber.training.batch import Loader

SETS = ("photos", "drawings")
SIZES = ((64, 64), (80, 48), (48, 80), (96, 32), (32, 96))
GOALS = {"open": (0.5, 64.0), "epoch": (2.0, 100e6), "plan": (15.0, 1e9)}
STEP = 123_456
NUM_LOADED = 200
NUM_PER_SHARD = 5000
PNG = bytes.fromhex(
    "89504e470d0a1a0a0000000d494844520000004000000040010000000082124c730000000f49444154789c63601805a3807c0000024000015936a103"
    "0000000049454e44ae426082"
)
"""64 x 64 pixels of black."""


def build_options() -> argparse.ArgumentParser:
    parser = machine.build_parser(__doc__)
    parser.add_argument("--pictures", type=machine.read_count, default=1_000_000, help="pictures of both sets together")
    parser.add_argument("--files", type=machine.read_count, default=100_000, help="files that are known, half of them captions")
    parser.add_argument("--rounds", type=machine.read_count, default=3, help="processes for each part, of which the median is printed")
    parser.add_argument("--folder", type=Path, help="where the temporary folder is made")
    parser.add_argument("--part", choices=[*GOALS, "files", "load", "edit"], help=argparse.SUPPRESS)
    return parser


def main(words: Sequence[str] | None = None) -> None:
    options = build_options().parse_args(words)
    if options.part is not None:
        machine.torch.set_num_threads(options.threads)
        print(json.dumps(PARTS[options.part](options.folder)))
        return
    machine.prepare(options)
    with tempfile.TemporaryDirectory(dir=options.folder, prefix="weber-data-") as name:
        folder = Path(name)
        num_bytes = write_sets(folder, options.pictures)
        print(f"{options.pictures} pictures in {len(SETS)} sets and {len(SIZES)} buckets, {num_bytes / 2**20:.0f} MiB of columns")
        for part, (most_seconds, most_bytes) in GOALS.items():
            seconds, grown, pages = measure(part, folder, options)
            each = f"{grown / options.pictures:.0f} bytes a picture" if part == "open" else f"{grown / 1e6:.0f} MB"
            shown = most_bytes * options.pictures if part == "open" else most_bytes
            counted = pages if part == "plan" else grown
            verdict = "met" if seconds <= most_seconds and counted <= shown else "MISSED"
            print(f"{part:6} {seconds:7.2f} s, {each} of its own, {pages / 1e6:.0f} MB with all pages: {verdict}")
        rate = machine.run_alone(__file__, ["--part", "load", "--folder", str(folder), "--threads", str(options.threads)])
        verdict = "met" if rate >= 5000 else "MISSED"
        print(f"reading cached samples as a step does: {rate:.0f} a second of processor time, goal 5,000: {verdict}")
        write_files(folder / "files", options.files // 2)
        read_files(folder)
        seconds, *_ = measure("files", folder, options)
        verdict = "met" if seconds <= 5 else "MISSED"
        print(f"{options.files} known files, half of them captions: {seconds:.2f} s, goal 5 s for 100,000: {verdict}")
        write_sets(folder / "edited", options.pictures, edited=options.pictures // 3)
        before, after = machine.run_alone(__file__, ["--part", "edit", "--folder", str(folder), "--threads", str(options.threads)])
        verdict = "met" if (set(before.values()), set(after.values())) == ({0}, {1}) else "MISSED"
        print(f"texts to encode with all of them in the cache: {before}; after one caption was edited: {after}: {verdict}")


def measure(part: str, folder: Path, options: argparse.Namespace) -> tuple[float, float, float]:
    """Median seconds of a part, bytes of its own and with all pages."""
    words = ["--part", part, "--folder", str(folder), "--threads", str(options.threads)]
    rounds = [machine.run_alone(__file__, words) for _ in range(options.rounds)]
    return median(one[0] for one in rounds), median(one[1] for one in rounds), median(one[2] for one in rounds)


def clock(work: Callable[[], object]) -> tuple[float, float, float]:
    """Seconds of the work, the bytes that the process's own memory has grown by, and the most that it had with mapped pages."""
    before, start = count_own_bytes(), time.perf_counter()
    kept = work()
    seconds, grown = time.perf_counter() - start, count_own_bytes() - before
    del kept
    return seconds, grown, read_peak_bytes()


def count_own_bytes() -> float:
    """Memory of the process, without pages of mapped files."""
    memory = psutil.Process().memory_info()
    return float(memory.rss - memory.shared)


def read_peak_bytes() -> float:
    """The most memory that the process ever had; `getrusage` has that of the process which started it too."""
    lines = Path("/proc/self/status").read_text(encoding="utf-8").splitlines()
    return next(1024.0 * int(line.split()[1]) for line in lines if line.startswith("VmHWM:"))


def open_part(folder: Path) -> tuple[float, float, float]:
    """Open both sets, and look at one picture."""

    def look() -> object:
        pictures = open_sets(folder)
        return pictures, pictures[len(pictures) // 3]

    return clock(look)


def epoch_part(folder: Path) -> tuple[float, float, float]:
    """Plan an epoch, and the step of a later one without those before it."""
    pictures = open_sets(folder)

    def draw() -> object:
        plan = BatchPlan(pictures, batch_size=4, accumulation=1, seed=1)
        return plan, plan.draw_step(STEP), plan.draw_step(7 * plan.steps_per_epoch + 3)

    return clock(draw)


def plan_part(folder: Path) -> tuple[float, float, float]:
    """What `weber plan` does, but for finding the pictures."""
    for name in ("diffusers.models", "transformers", "peft"):
        import_module(name)
    gc.freeze()  # as `weber plan` does when all is imported (weber/imports.py)
    return clock(lambda: build_report(plan_sets(folder)))


def plan_sets(folder: Path) -> Plan:
    """The plan of a run on both sets."""
    config = build_config(
        {
            "model": {"variant": "pocket"},
            "data": [{"path": str(folder), "name": name} for name in SETS],
            "train": {"steps": 1000},
            "output": {"folder": str(folder / "run"), "cache": str(folder / "cache")},
        }
    )
    with patch("weber.planning.plan.build_dataset", lambda *_, **__: Dataset(open_sets(folder), (), 0)):
        return build_plan(config)


def files_part(folder: Path) -> tuple[float, float, float]:
    """Find files that are known."""
    return clock(lambda: read_files(folder))


def edit_part(folder: Path) -> tuple[dict[str, int], dict[str, int]]:
    """Texts that a store lacks which has all of them, of each text encoder: as they are, and after one caption was edited."""
    cache, plan = folder / "edit cache", plan_sets(folder)
    cache.mkdir()
    for part in plan.encoders.family.text_parts:
        texts, encoder = iter(plan.needs.texts), plan.encoders.identify(part)
        while portion := list(islice(texts, NUM_PER_SHARD)):
            keys = [build_text_key(text, encoder=encoder, dtype=plan.encoders.dtype) for text in portion]
            write_shard(cache / draw_shard_name(), {key: {"text": torch.zeros(1)} for key in keys})
    Store(cache).catalog.keep_index()
    edited = plan_sets(folder / "edited")
    return plan.needs.count_missing_texts(Store(cache)), edited.needs.count_missing_texts(Store(cache))


def load_part(folder: Path) -> float:
    """Samples a second, in batches of 8, of 200 pictures that are in the cache; the fastest of five times 100 steps."""
    write_files(folder / "loaded", NUM_LOADED, is_one=False)
    config = build_config(
        {
            "model": {"variant": "pocket"},
            "data": [{"path": str(folder / "loaded")}],
            "train": {"steps": 10_000, "batch_size": 8},
            "output": {"folder": str(folder / "run"), "cache": str(folder / "loaded cache")},
        }
    )
    plan, store = build_plan(config, is_run=True), Store(config.output.cache)
    encode_cache(plan, store, watcher=Watcher(build_console(io.StringIO())))
    best = 0.0
    with Loader(plan, Store(config.output.cache)) as loader:
        for turn in range(6):
            start = time.process_time()
            num = sum(len(batch.places) for step in range(100) for batch in loader.read(100 * turn + step))
            best = max(best, num / (time.process_time() - start))
    return best


PARTS = {"open": open_part, "epoch": epoch_part, "plan": plan_part, "files": files_part, "load": load_part, "edit": edit_part}


def open_sets(folder: Path) -> Pictures:
    """The pictures of both sets, as they were written."""
    parts = []
    for name in SETS:
        columns = read_columns(folder / name)
        assert columns is not None
        parts.append(Part(Shared(name, folder), columns))
    return Pictures(parts)


def write_sets(folder: Path, num_pictures: int, *, edited: int | None = None) -> int:
    """Columns of half the pictures for each set; their bytes. `edited`: the number of a picture of the first set with another caption."""
    num = max(1, num_pictures // len(SETS))
    folder.mkdir(exist_ok=True)
    for name in SETS:
        shapes = np.arange(num, dtype=np.int32) % len(SIZES)
        sizes = np.array(SIZES, np.int32)[shapes]
        contents = b"".join(blake2b(f"{name} {number}".encode(), digest_size=16).digest() for number in range(num))
        paths, captions, files = TextPacker(), TextPacker(), TextPacker()
        for number in range(num):
            paths.add(f"{number // 10_000:04}/{number:08}.jpg")
            side = "right" if number == edited and name == SETS[0] else "left"
            captions.add(f"{name}: a picture of number {number}, in front of a red wall, seen from the {side}")
            files.add("")
        arrays = {
            "content": np.frombuffer(contents, np.uint8).reshape(-1, 16),
            "size": 2 * sizes,
            "shape": shapes,
            "color": np.zeros(num, np.int32),
            "crop": np.concatenate([sizes, np.zeros_like(sizes), sizes], axis=1),
            "crop.rows": np.arange(1, num + 1),
            "caption.rows": np.arange(1, num + 1),
            **paths.build("path"),
            **captions.build("caption"),
            **files.build("caption_file"),
        }
        facts = {"shapes": [[*size, [], False, False] for size in SIZES], "words": [""]}
        write_columns(folder / name, build_columns(arrays, facts))
    return sum((folder / name).stat().st_size for name in SETS)


def write_files(folder: Path, num: int, *, is_one: bool = True) -> None:
    """Pictures, all the same or each another one, in folders of 5,000, each with a caption file."""
    for number in range(max(1, num)):
        home = folder / f"{number // 5000:04}"
        if number % 5000 == 0:
            home.mkdir(parents=True)
        (home / f"{number:07}.png").write_bytes(PNG)
        if not is_one:
            Image.new("RGB", (64, 64), (number % 256, number // 256, 7)).save(home / f"{number:07}.png")
        (home / f"{number:07}.txt").write_text(f"picture number {number}")


def read_files(folder: Path) -> Dataset:
    """As a run does when it starts."""
    config = DataConfig(path=folder / "files", resolution=64, bucket_step=16)
    return build_dataset(
        [config],
        alignment_pixels=16,
        inputs=PictureLimits(),
        index_path=folder / "cache" / "index.sqlite",
        hub_folder=folder / "hub",
        seed=1,
        progress=ignore_progress,
    )


if __name__ == "__main__":
    main()
