"""A run that is killed (SIGKILL) again and again and resumed each time must end with the same bytes as one that was left alone.

    python benchmarks/kill.py

First a run is left alone and watched: when did it have its plan, its cached shards, its steps, its checkpoints, its pictures? Then
the same run is made again, in the same folders, but killed at 25 random moments, one in each 25th of the watched time, from the plan to
the end: while it caches, loads, paints, trains and saves. A moment is kept as "so many seconds after the 7th step", because the clock means
nothing after a resume. Each kill is followed by `weber train --resume`. The time a process needs to import its libraries is not
watched: there is nothing to lose in it. At the end the adapter, every checkpoint that is kept, all pictures and the metrics (but the
seconds) are compared. Exit code 1 if anything differs.
"""

from __future__ import annotations

import argparse
import json
import os
import random
import shutil
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path

from machine import describe_machine
from PIL import Image

from weber.config.load import build_config, save_config
from weber.pocket.random import TINY, build_random_model

ROOT = Path(__file__).absolute().parents[1]
CHILD = "import sys; from weber.cli import main; sys.argv[0] = 'weber'; main()"
NUM_PICTURES = 10
EDGE_PIXELS = 64
POLL_SECONDS = 0.002
MAX_SECONDS = 300.0
TIME_FIELDS = {"seconds"}
LEFTOVERS = ("**/*.tmp", "**/.*.partial", "**/.*.deleted")


@dataclass(frozen=True)
class Place:
    """Where a run is made, again and again with the same paths, because checkpoints hold them."""

    folder: Path
    started: float = 0.0
    """Files of the last child are younger than this (Unix time)."""

    @property
    def run(self) -> Path:
        """The run folder."""
        return self.folder / "run"

    @property
    def cache(self) -> Path:
        """Its cache."""
        return self.folder / "cache"


@dataclass(frozen=True)
class Moment:
    """So many seconds after one of the counters of `count_signs` has reached a number. `after` is its time in the watched run."""

    sign: str
    number: int
    seconds: float
    after: float


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--kills", type=int, default=25, help="how many (default: 25)")
    parser.add_argument("--steps", type=int, default=40, help="training steps of the run (default: 40)")
    parser.add_argument("--seed", type=int, default=None, help="seed of the moments (default: drawn and printed)")
    arguments = parser.parse_args()
    seed = random.randrange(2**32) if arguments.seed is None else arguments.seed
    print(describe_machine())
    with tempfile.TemporaryDirectory(prefix="weber-kill-") as name:
        place = build_place(Path(name), num_steps=arguments.steps)
        timeline, seconds = watch(place)
        first = timeline[0][0]
        print(f"left alone: {seconds:.1f} s, of which {seconds - first:.1f} s after the imports; {arguments.kills} kills, seed {seed}\n")
        differences, num_kills = kill_often(place, timeline, seconds, num_kills=arguments.kills, seed=seed)
    for line in differences:
        print(f"differs: {line}")
    print(f"\n{'FAIL' if differences else 'PASS'}: {num_kills} kills, {len(differences)} differences")
    sys.exit(1 if differences else 0)


def kill_often(
    place: Place, timeline: Sequence[tuple[float, str, int]], seconds: float, *, num_kills: int, seed: int
) -> tuple[list[str], int]:
    """Make the run again with that many kills; what differs in the end. A run that ends before its last moments is followed by another."""
    draws, differences, done = random.Random(seed), [], 0
    print(f"{'kill':>4} {'moment':>8} {'sign':>16} {'then':>7}  {'shards':>6} {'pictures':>8} {'steps':>5} {'checkpoint':>10}  left unfinished")
    while done < num_kills:
        clear(place)
        for moment in draw_moments(timeline, seconds, num=num_kills - done, draws=draws):
            child = start(place)
            if not kill_at(place, child, moment):
                break
            done += 1
            print(f"{done:4} {moment.after:6.2f} s {moment.sign:>13} {moment.number:2} {1e3 * moment.seconds:4.0f} ms  {describe_place(place)}", flush=True)
        finish(place, start(place))
        differences += compare(place)
    return differences, done


def build_place(folder: Path, *, num_steps: int, save_every: int = 3, paint_every: int = 10) -> Place:
    """A tiny random model, ten small pictures, and the settings of a run, ready to be started."""
    model = build_random_model(folder / "model", size=TINY)
    pictures = folder / "pictures"
    pictures.mkdir()
    for source in sorted((ROOT / "examples" / "fluent").glob("*.png"))[:NUM_PICTURES]:
        with Image.open(source) as picture:
            picture.resize((EDGE_PIXELS, EDGE_PIXELS), Image.Resampling.LANCZOS).save(pictures / source.name)
        shutil.copyfile(source.with_suffix(".txt"), pictures / f"{source.stem}.txt")
    place = Place(folder)
    config = build_config(
        {
            "model": {"path": str(model), "variant": "pocket"},
            "data": [{"path": str(pictures), "resolution": EDGE_PIXELS, "crop": "random", "num_crops": 2}],
            "memory": {"device": "cpu", "dtype": "fp32"},
            "adapter": {"rank": 4, "dropout": 0.1},
            "optim": {"schedule": "cosine", "warmup_steps": 3, "lr": 1e-3},
            "train": {"steps": num_steps, "batch_size": 2},
            "sampling": {"prompts": ["a red apple", "a dog"], "every": paint_every, "steps": 2},
            "output": {"folder": str(place.run), "cache": str(place.cache), "save_every": save_every},
        }
    )
    save_config(config, folder / "config.toml")
    return place


def start(place: Place) -> subprocess.Popen[bytes]:
    """`weber train`, with `--resume` where there is something to resume, as a process of its own."""
    resume = ["--resume"] if place.run.exists() else []
    environment = os.environ | {"OMP_NUM_THREADS": "1", "HF_HUB_OFFLINE": "1"}
    object.__setattr__(place, "started", time.time())
    with (place.folder / "output.txt").open("wb") as output:
        return subprocess.Popen(
            [sys.executable, "-c", CHILD, "train", str(place.folder / "config.toml"), *resume],
            cwd=ROOT,
            env=environment,
            stdin=subprocess.DEVNULL,
            stdout=output,
            stderr=subprocess.STDOUT,
        )
