"""What a command costs before it is of use: the processor time (user and system, all threads) of real processes, taking turns.

    python benchmarks/start.py [--against FOLDER] [--only NAME ...] [--rounds 5] [--threads 1]

torch     import torch, and nothing of weber: how fast this machine is
help      weber --help
typo      weber plan, of settings with a key that there is not: read and refused
variants  weber variants
inspect   weber inspect, of a LoRA
plan      weber plan, of a run of the pocket model on the 12 pictures of examples/zorb
step      weber train, of the same run with nothing encoded yet, up to the line of the first step in its metrics

Each is run once to warm up (compiled files, the disk), then so many rounds; the median counts, and the time by the clock stands beside it.
With `--against`, every command is run with weber from that folder too, right after ours: another checkout, made with
`git worktree add FOLDER COMMIT`. Ratio: theirs over ours. Both sides have the same Python and libraries.

Goals are for a machine where `torch` takes 1.1 s; where it was measured and takes longer, they are that much longer.
"""

from __future__ import annotations

import argparse
import os
import shutil
import subprocess
import sys
import tempfile
import time
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from statistics import median

import machine
import psutil
import torch

from weber.adapters.factors import Factors
from weber.adapters.files import save_adapter
from weber.families.flux1.keys import PAIRINGS

ROOT = Path(__file__).absolute().parents[1]
CHILD = "import sys; from weber.cli import main; sys.argv[0] = 'weber'; main()"
NUM_WARM_UP = 1
POLL_SECONDS = 0.002
GOALS = {"torch": None, "help": 0.4, "typo": None, "variants": 1.5, "inspect": 1.5, "plan": 4.0, "step": 5.0}
"""Seconds of processor time, on a machine where `torch` takes `TORCH_SECONDS`."""
TORCH_SECONDS = 1.1

SETTINGS = """
[model]
variant = "pocket"
[[data]]
path = '{pictures}'
[train]
{steps} = 2
[output]
folder = '{folder}/run'
cache = '{folder}/cache'
"""


@dataclass(frozen=True)
class Cost:
    """Seconds of a command: of the processor, and by the clock."""

    processor: float
    clock: float


def build_options() -> argparse.ArgumentParser:
    parser = machine.build_parser(__doc__)
    parser.add_argument("--against", type=Path, metavar="FOLDER", help="another checkout of weber")
    parser.add_argument("--only", nargs="+", choices=list(GOALS), default=list(GOALS), metavar="NAME", help="some of the commands")
    parser.add_argument("--rounds", type=machine.read_count, default=5, help="how often each command is measured")
    return parser


def main(words: Sequence[str] | None = None) -> None:
    options = build_options().parse_args(words)
    machine.prepare(options)
    sides = [ROOT] + ([] if options.against is None else [options.against.absolute()])
    costs: dict[tuple[str, Path], list[Cost]] = {(name, side): [] for name in options.only for side in sides}
    with tempfile.TemporaryDirectory() as folder:
        place = Path(folder)
        write_files(place)
        for number in range(NUM_WARM_UP + options.rounds):
            for name, side in costs:
                cost = run(name, place, side=side, num_threads=options.threads)
                if number >= NUM_WARM_UP:
                    costs[name, side].append(cost)
    print(f"median of {options.rounds} rounds, in seconds of the processor (by the clock)\n")
    print("| command | weber | goal |" + " against | ratio |" * (len(sides) - 1))
    print("|---|---:|---|" + "---:|---:|" * (len(sides) - 1))
    slowness = find_median(costs["torch", ROOT]).processor / TORCH_SECONDS if "torch" in options.only else 1.0
    for name in options.only:
        ours, *theirs = [find_median(costs[name, side]) for side in sides]
        said = write_goal(GOALS[name], ours.processor, slowness=max(1.0, slowness))
        cells = [name, write_cost(ours), said, *(cell for one in theirs for cell in (write_cost(one), write_ratio(one, ours)))]
        print("| " + " | ".join(cells) + " |")


def write_files(place: Path) -> None:
    """Settings, settings with a mistake, and a LoRA."""
    for name, steps in (("run", "steps"), ("typo", "stpes")):
        text = SETTINGS.format(pictures=(ROOT / "examples" / "zorb").as_posix(), folder=place.as_posix(), steps=steps)
        (place / f"{name}.toml").write_text(text, encoding="utf-8")
    layers = [f"single_transformer_blocks.{number}.attn.to_{part}" for number in range(4) for part in "qkv"]
    modules = {layer: Factors(torch.zeros(16, 128), torch.zeros(128, 16), 16.0) for layer in layers}
    save_adapter(place / "lora.safetensors", modules, layout="diffusers", facts={}, metadata={}, pairings=PAIRINGS)


def run(name: str, place: Path, *, side: Path, num_threads: int) -> Cost:
    """Run a command of a checkout once."""
    words = {
        "torch": [],
        "help": ["--help"],
        "typo": ["plan", "typo.toml"],
        "variants": ["variants"],
        "inspect": ["inspect", "lora.safetensors"],
        "plan": ["plan", "run.toml"],
        "step": ["train", "run.toml"],
    }[name]
    for folder in ("run", "cache"):
        shutil.rmtree(place / folder, ignore_errors=True)
    threads = {"OMP_NUM_THREADS": str(num_threads)}
    environment = {**os.environ, **threads, "PYTHONPATH": str(side), "HF_HUB_OFFLINE": "1"}
    start = time.perf_counter()
    with (place / "output.txt").open("w", encoding="utf-8") as output:
        child = [sys.executable, "-c", "import torch" if name == "torch" else CHILD, *words]
        process = subprocess.Popen(child, cwd=place, env=environment, stdout=output, stderr=subprocess.STDOUT)
        seconds = wait_for_step(process, place / "run" / "metrics.jsonl") if name == "step" else wait_for_end(process)
        clock = time.perf_counter() - start
        if name == "step":
            process.kill()
            process.wait()
    if seconds is None or (name != "step" and process.returncode != (2 if name == "typo" else 0)):
        raise RuntimeError(f"weber {' '.join(words)} of {side} failed:\n{(place / 'output.txt').read_text(encoding='utf-8')}")
    return Cost(seconds, clock)


def wait_for_end(process: subprocess.Popen[bytes]) -> float:
    """Processor time of the whole process."""
    _, status, usage = os.wait4(process.pid, 0)
    process.returncode = os.waitstatus_to_exitcode(status)
    return usage.ru_utime + usage.ru_stime


def wait_for_step(process: subprocess.Popen[bytes], metrics: Path) -> float | None:
    """Processor time when the first line is in the metrics; None where the process ends before."""
    watched = psutil.Process(process.pid)
    while process.poll() is None:
        if metrics.is_file() and metrics.stat().st_size:
            times = watched.cpu_times()
            return times.user + times.system
        time.sleep(POLL_SECONDS)
    return None


def find_median(costs: Sequence[Cost]) -> Cost:
    return Cost(median(one.processor for one in costs), median(one.clock for one in costs))


def write_goal(goal: float | None, seconds: float, *, slowness: float) -> str:
    if goal is None:
        return ""
    return f"{goal * slowness:.2g} {'met' if seconds <= goal * slowness else 'MISSED'}"


def write_cost(cost: Cost) -> str:
    return f"{cost.processor:.2f} ({cost.clock:.2f})"


def write_ratio(theirs: Cost, ours: Cost) -> str:
    return f"{theirs.processor / ours.processor:.2f}"


if __name__ == "__main__":
    main()
