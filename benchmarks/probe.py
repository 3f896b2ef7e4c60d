"""What `memory.dtype = "auto"` takes on this processor, and whether a step is faster in it.

    python benchmarks/probe.py [--steps 8] [--widths 128 512 1024] [--tokens 1024] [--threads 1]

A FLUX.1 of 1 double and 2 single blocks of each width, one picture of so many image tokens per step, a LoRA of rank 16 on `all+ffs`. The
same learner as in `step.py`, in fp32 and in bf16, taking turns; beside it what the trial says that a run makes once (the products and
the attention of a block of these sizes in both precisions), whether it makes one at all, and what it takes.
"""

from __future__ import annotations

import argparse
import tempfile
import time
from collections.abc import Sequence
from pathlib import Path
from statistics import median

import machine
import step

from weber.memory.probe import LEAST_GAIN, BlockSizes, has_bf16_units, measure_gain
from weber.pocket.networks import PocketSize
from weber.pocket.random import build_random_model
from weber.training.step import train_step

HEAD_WIDTH = 64
NUM_WARM_UP = 2


def build_options() -> argparse.ArgumentParser:
    parser = machine.build_parser(__doc__)
    parser.add_argument("--steps", type=machine.read_count, default=8, help="measured steps of each precision and width")
    parser.add_argument("--widths", type=int, nargs="+", default=[128, 512, 1024], help="numbers in a token, multiples of 64")
    parser.add_argument("--tokens", type=int, choices=list(step.LATENT_EDGES), default=1024, help="image tokens")
    return parser


def main(words: Sequence[str] | None = None) -> None:
    options = build_options().parse_args(words)
    machine.prepare(options)
    print(f"units for bf16: {'yes' if has_bf16_units() else 'no'}; bf16 is taken where a trial says {LEAST_GAIN} or more\n")
    print(" width    fp32 ms    bf16 ms  step gain  trial says   seconds  a run tries  takes")
    for width in options.widths:
        with tempfile.TemporaryDirectory(prefix="weber-probe-") as name:
            size = PocketSize(1, 2, width // HEAD_WIDTH, HEAD_WIDTH, (16, 24, 24), step.SIZE.text_width, 2, (8, 8, 8, 8), 4)
            seconds = measure(build_random_model(Path(name), size=size), options.tokens, num_steps=options.steps)
        sizes, start = BlockSizes(options.tokens, width, width // HEAD_WIDTH), time.perf_counter()
        gain = measure_gain(sizes)
        spent, tries = time.perf_counter() - start, has_bf16_units() and sizes.is_worth_trying
        taken = "bf16" if tries and gain >= LEAST_GAIN else "fp32"
        cells = f"{1e3 * seconds['lora']:10.1f} {1e3 * seconds['bf16']:10.1f} {seconds['lora'] / seconds['bf16']:10.2f}"
        print(f"{width:6} {cells} {gain:11.2f} {spent:9.4f} {'yes' if tries else 'no':>12}  {taken}", flush=True)


def measure(model: Path, num_tokens: int, *, num_steps: int) -> dict[str, float]:
    """Median seconds of a step in each precision."""
    batch = step.draw_batch(step.LATENT_EDGES[num_tokens])
    learners = {
        kind: step.build_learner(model, kind, checkpointing=False, num_steps=NUM_WARM_UP + num_steps) for kind in ("lora", "bf16")
    }
    seconds: dict[str, list[float]] = {kind: [] for kind in learners}
    for number in range(NUM_WARM_UP + num_steps):
        for kind, learner in learners.items():
            start = time.perf_counter()
            train_step(learner, [batch], step=number)
            seconds[kind].append(time.perf_counter() - start)
    return {kind: median(times[NUM_WARM_UP:]) for kind, times in seconds.items()}


if __name__ == "__main__":
    main()
