"""A run that is killed (SIGKILL) again and again and resumed each time must end with the same bytes as one that was left alone.

    python benchmarks/kill.py [--kills 25] [--steps 40] [--seed SEED] [--threads 1]

First a run is left alone and watched: when did it have its index, its plan, its cached shards, its pictures, its steps, its checkpoints?
Then the same run is made again, in the same folders, but killed at as many random moments as asked, one in each of as many equal parts of
the watched time, from the first file to the last, and each time gone on with by `weber train --resume`. A moment is kept as "so many
seconds after the 7th step", because the clock means nothing after a resume. A third of the moments between two steps are moved into the
next checkpoint that is written, which takes too little time to be hit often. The time in which a process only imports its libraries is not
watched: there is nothing to lose in it. The moments are drawn by the seed, which is drawn and printed where none is given. At the end the
settings, the adapter, every checkpoint that is kept, all pictures and the metrics (but the seconds) are compared. Exit code 1 if anything
differs.
"""

from __future__ import annotations

import argparse
import hashlib
import json
import os
import random
import shutil
import subprocess
import sys
import tempfile
import time
from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path

import machine
from PIL import Image

from weber.config.load import build_config, save_config

ROOT = Path(__file__).absolute().parents[1]
CHILD = "import sys; from weber.cli import main; sys.argv[0] = 'weber'; main()"
NUM_PICTURES = 10
NUM_SHARDS = 3
"""One for the latents, one for each of the two text parts."""

EDGE_PIXELS = 64
POLL_SECONDS = 0.002
MAX_SECONDS = 300.0
NUM_SHOWN = 20
SHARE_SAVING = 1 / 3
SAVE_SECONDS = 0.012
TIME_FIELDS = ("seconds", "peak_memory_bytes")

Signs = Counter[str]


@dataclass(frozen=True)
class Place:
    """Where a run is made, again and again with the same paths, because checkpoints hold them."""

    folder: Path
    paint_every: int
    num_threads: int

    @property
    def run(self) -> Path:
        """The run folder."""
        return self.folder / "run"

    @property
    def alone(self) -> Path:
        """Where the run folder of the run that was left alone is put away."""
        return self.folder / "alone"

    @property
    def cache(self) -> Path:
        """The cache."""
        return self.folder / "cache"


@dataclass(frozen=True)
class Mark:
    """A sign that had reached a number at a time of the watched run."""

    seconds: float
    sign: str
    number: int


@dataclass(frozen=True)
class Moment:
    """`seconds` of the watched run, which means `after` seconds after a mark; or, with `in_save`, after the next checkpoint is begun."""

    seconds: float
    mark: Mark
    in_save: bool
    after: float

    def is_reached(self, signs: Signs) -> bool:
        """Is it time to count the seconds?"""
        return signs[self.mark.sign] >= self.mark.number and (not self.in_save or signs["saving"] > 0)

    def __str__(self) -> str:
        sign = f"{self.mark.sign} {self.mark.number}{', saving' if self.in_save else ''}"
        return f"{self.seconds:6.2f} s, {sign:18} + {1e3 * self.after:3.0f} ms"


@dataclass(frozen=True)
class Kill:
    """What a kill has hit: the last signs of the process, what it was doing, and what it left unfinished."""

    signs: Signs
    phase: str
    unfinished: list[str]


def build_options() -> argparse.ArgumentParser:
    parser = machine.build_parser(__doc__)
    parser.add_argument("--kills", type=machine.read_count, default=25, help="how many")
    parser.add_argument("--steps", type=machine.read_count, default=40, help="training steps of the run")
    parser.add_argument("--seed", type=int, help="seed of the moments")
    return parser


def main(words: Sequence[str] | None = None) -> None:
    options = build_options().parse_args(words)
    machine.prepare(options)
    seed = random.randrange(2**32) if options.seed is None else options.seed
    with tempfile.TemporaryDirectory(prefix="weber-kill-") as name:
        place = build_place(Path(name), num_steps=options.steps, num_threads=options.threads)
        timeline = watch(place)
        seconds = timeline[-1].seconds - timeline[0].seconds
        print(f"left alone: {timeline[-1].seconds:.1f} s, {seconds:.1f} s of them from the first file on; seed {seed}\n")
        differences = kill_often(place, timeline, num_kills=options.kills, draws=random.Random(seed))
    for line in differences[:NUM_SHOWN]:
        print(f"differs: {line}")
    print(f"{'FAIL' if differences else 'PASS'}: {options.kills} kills, {len(differences)} differences")
    sys.exit(1 if differences else 0)


def kill_often(place: Place, timeline: Sequence[Mark], *, num_kills: int, draws: random.Random) -> list[str]:
    """Make the run again with that many kills; what differs at its end. Where a run ends before its last moments, another follows."""
    differences: list[str] = []
    phases: Counter[str] = Counter()
    print("kill    moment, which is                    phase     shards pictures steps checkpoint  unfinished")
    while phases.total() < num_kills:
        clear(place)
        for moment in draw_moments(timeline, num_kills - phases.total(), draws):
            kill = kill_when(place, moment.is_reached, seconds=moment.after)
            if kill is None:
                break
            phases[kill.phase] += 1
            counts = "{shards:6} {pictures:8} {steps:5} {checkpoint:10}".format_map(kill.signs)
            print(f"{phases.total():4}  {moment}  {kill.phase:8} {counts}  {', '.join(kill.unfinished)}", flush=True)
        finish(place)
        differences += compare(place)
    print("\n" + ", ".join(f"{number} while {phase}" for phase, number in phases.most_common()))
    print(f"left behind at the end: {', '.join(list_unfinished(place)) or 'nothing'}")
    return differences


def build_place(folder: Path, *, num_steps: int, save_every: int = 3, paint_every: int = 10, num_threads: int = 1) -> Place:
    """Ten small pictures, and the settings of a run of the pocket model that uses all that a run can remember."""
    pictures = folder / "pictures"
    pictures.mkdir()
    for source in sorted((ROOT / "examples" / "fluent").glob("*.png"))[:NUM_PICTURES]:
        with Image.open(source) as picture:
            picture.resize((EDGE_PIXELS, EDGE_PIXELS), Image.Resampling.LANCZOS).save(pictures / source.name)
        shutil.copyfile(source.with_suffix(".txt"), pictures / f"{source.stem}.txt")
    place = Place(folder, paint_every, num_threads)
    config = build_config(
        {
            "model": {"variant": "pocket"},
            "data": [{"path": str(pictures), "resolution": 48, "bucket_step": 16, "crop": "random"}],
            "adapter": {"rank": 4, "dropout": 0.1},
            "memory": {"device": "cpu", "dtype": "fp32"},
            "optim": {"lr": 1e-3, "schedule": "cosine", "warmup_steps": 3},
            "train": {"steps": num_steps, "batch_size": 2},
            "sampling": {"prompts": ["a red apple", "a dog"], "every": paint_every, "steps": 2},
            "output": {"folder": str(place.run), "cache": str(place.cache), "save_every": save_every},
        }
    )
    save_config(config, folder / "config.toml")
    return place


def watch(place: Place) -> list[Mark]:
    """Make the run without disturbing it, put its folder away, and tell when each sign changed; the last change is the adapter."""
    clear(place)
    timeline: list[Mark] = []
    seen: Signs = Counter()
    started = time.time()
    with start(place) as child:
        while is_running(place, child, started):
            signs = count_signs(place, started)
            seconds = time.time() - started
            timeline += [Mark(seconds, sign, number) for sign, number in signs.items() if sign != "saving" and number > seen[sign]]
            seen |= signs
            time.sleep(POLL_SECONDS)
    place.run.replace(place.alone)
    return timeline


def draw_moments(timeline: Sequence[Mark], num: int, draws: random.Random) -> list[Moment]:
    """Moments of the watched run, one in each of `num` equal parts of its time."""
    first, last = timeline[0].seconds, timeline[-1].seconds
    moments = []
    for part in range(num):
        seconds = first + (last - first) * (part + draws.random()) / num
        mark = [mark for mark in timeline if mark.seconds <= seconds][-1]
        in_save = mark.sign == "steps" and draws.random() < SHARE_SAVING
        moments.append(Moment(seconds, mark, in_save, draws.uniform(0.0, SAVE_SECONDS) if in_save else seconds - mark.seconds))
    return moments


def kill_when(place: Place, reached: Callable[[Signs], bool], *, seconds: float = 0.0) -> Kill | None:
    """Start the run, or go on with it, and kill it so many seconds after its signs are as wished; None if it ended before that."""
    started = time.time()
    with start(place) as child:
        while not reached(count_signs(place, started)):
            if not is_running(place, child, started):
                return None
            time.sleep(POLL_SECONDS)
        with suppress(subprocess.TimeoutExpired):
            child.wait(seconds)
            return None
        child.kill()
        child.wait()
    signs = count_signs(place, started)
    return Kill(signs, _name_phase(place, signs), list_unfinished(place))


def finish(place: Place) -> None:
    """Go on with the run to its end."""
    started = time.time()
    with start(place) as child:
        while is_running(place, child, started):
            time.sleep(POLL_SECONDS)


@contextmanager
def start(place: Place) -> Iterator[subprocess.Popen[bytes]]:
    """`weber train`, with `--resume` if there is something to resume, as a process that does not outlive the context."""
    resume = ["--resume"] if place.run.exists() else []
    with (place.folder / "output.txt").open("wb") as output:
        child = subprocess.Popen(
            [sys.executable, "-c", CHILD, "train", str(place.folder / "config.toml"), *resume],
            cwd=ROOT,
            env=os.environ | {"OMP_NUM_THREADS": str(place.num_threads), "HF_HUB_OFFLINE": "1"},
            stdin=subprocess.DEVNULL,
            stdout=output,
            stderr=subprocess.STDOUT,
        )
        try:
            yield child
        finally:
            child.kill()
            child.wait()


def is_running(place: Place, child: subprocess.Popen[bytes], started: float) -> bool:
    """False once it has ended well; RuntimeError with its words if it failed or takes too long."""
    if child.poll() is None and time.time() - started < MAX_SECONDS:
        return True
    if child.returncode != 0:
        raise RuntimeError(f"weber ended with {child.returncode}: " + (place.folder / "output.txt").read_text(encoding="utf-8"))
    return False


def count_signs(place: Place, started: float) -> Signs:
    """How far the process that was started at that time has come, by the files that it has written."""
    signs: Signs = Counter()
    signs["plan"] = (place.run / "run.lock").exists()  # of an earlier process too
    signs["index"] = signs["plan"] or _is_younger(place.cache / "index.sqlite", started)
    if signs["plan"]:
        signs["shards"] = sum(1 for _ in place.cache.glob("*.safetensors"))  # the folder may not be there yet
    if _is_younger(place.run / "metrics.jsonl", started):
        signs["metrics"] = 1
        signs["pictures"] = sum(1 for _ in place.run.glob("pictures/**/[!.]*.png"))
        signs["steps"] = (place.run / "metrics.jsonl").read_bytes().count(b"\n")
        signs["checkpoint"] = max((int(path.name.partition("-")[2]) for path in place.run.glob("checkpoint-*")), default=0)
        signs["saving"] = any(_is_younger(path, started) for path in place.run.glob(".checkpoint-*.partial"))
        signs["adapter"] = _is_younger(place.run / "adapter.safetensors", started)
    return signs


def list_unfinished(place: Place) -> list[str]:
    """Names of files and folders that were not whole when a process ended."""
    folders = [folder for folder in (place.run, place.cache) if folder.is_dir()]
    suffixes = (".tmp", ".partial", ".deleted", "-journal")
    return sorted(path.name for folder in folders for path in folder.rglob("*") if path.name.endswith(suffixes))


def compare(place: Place) -> list[str]:
    """What differs between the run that was left alone and the one that has just ended."""
    expected, got = _read_run(place.alone), _read_run(place.run)
    return [
        f"{name}: {_show(got.get(name))} instead of {_show(expected.get(name))}"
        for name in expected | got
        if expected.get(name) != got.get(name)
    ]


def clear(place: Place) -> None:
    """Forget the last run and its cache."""
    for folder in (place.run, place.cache):
        shutil.rmtree(folder, ignore_errors=True)


def _read_run(run: Path) -> dict[str, bytes]:
    """Everything that a run is for, by name; the metrics line by line, without the fields that are times."""
    content: dict[str, bytes] = {}
    for number, text in enumerate((run / "metrics.jsonl").read_text(encoding="utf-8").splitlines(), 1):
        line = {name: value for name, value in json.loads(text).items() if name not in TIME_FIELDS}
        content[f"metrics.jsonl, line {number}"] = json.dumps(line).encode()
    files = [run / "config.toml", run / "adapter.safetensors", *run.glob("checkpoint-*/*"), *run.glob("pictures/**/*.png")]
    return content | {file.relative_to(run).as_posix(): file.read_bytes() for file in files}


def _show(content: bytes | None) -> str:
    if content is None:
        return "nothing"
    return content.decode() if content.startswith(b"{") else f"{len(content)} bytes {hashlib.blake2b(content, digest_size=4).hexdigest()}"


def _name_phase(place: Place, signs: Signs) -> str:
    if not signs["plan"]:
        return "planning"
    if not signs["metrics"]:
        return "caching" if signs["shards"] < NUM_SHARDS else "loading"
    if signs["saving"]:
        return "saving"
    is_due = signs["steps"] % place.paint_every == 0
    return "painting" if is_due and not (place.run / "pictures" / f"step-{signs['steps']:06d}.png").exists() else "training"


def _is_younger(path: Path, started: float) -> int:
    with suppress(FileNotFoundError):
        return int(path.stat().st_mtime >= started)
    return 0


if __name__ == "__main__":
    main()
