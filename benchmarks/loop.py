"""What a step of a real run costs beside forward, backward and optimizer.

    python benchmarks/loop.py [--steps 250] [--save-every 100] [--threads 1]

A whole run as `weber train` makes it (plan, cache on disk, adapter, metrics, now and then a checkpoint, progress), on a random model and
the pictures of examples/, twice: with plain progress lines and with the bars of a terminal. 5 more steps warm up. Forward (the predictor),
backward and `optimizer.step` are timed inside each step and taken away from the time between the starts of two steps; what is left is the
price of the loop, printed as the median per step and as a share of a step of 60 ms (goal: at most 3 %). The lines below it say where it
goes; all that none of them names is "the rest". Steps that end with a checkpoint are listed on their own: on average a checkpoint costs
each step its time / `output.save_every`.
"""

from __future__ import annotations

import argparse
import os
import tempfile
import time
from collections import defaultdict
from collections.abc import Callable, Iterator, Sequence
from contextlib import ExitStack, contextmanager
from functools import partial
from pathlib import Path
from statistics import median
from typing import Any, TextIO
from unittest import mock

import machine
import torch
from rich.console import Console

import weber.training.loop
import weber.training.saving
import weber.training.step
from weber.cache.store import Store
from weber.checkpoint.resume import Found
from weber.config.load import build_config
from weber.config.run import RunConfig
from weber.planning.plan import build_plan
from weber.pocket.networks import PocketSize
from weber.pocket.random import build_random_model
from weber.track.metrics import Trackers
from weber.track.progress import Watcher
from weber.training.assemble import assemble, encode_cache
from weber.training.batch import Loader
from weber.training.demo import find_examples
from weber.training.follow import Follower
from weber.training.loop import run
from weber.training.prepared import Training
from weber.training.stop import Stop

SIZE = PocketSize(2, 4, 4, 32, (8, 12, 12), 64, 2, (8, 8, 8, 8), 4)
RESOLUTION = 208
STEP_SECONDS = 0.060
GOAL = 0.03
NUM_WARM_UP = 5
NETWORK = ("forward", "backward", "optimizer")


class Clock:
    """Seconds by name, step by step. What is timed inside something timed counts only once, for the inner one."""

    def __init__(self) -> None:
        self.steps: list[defaultdict[str, float]] = []
        self._inner: list[float] = []
        self._started = 0.0

    def start_step(self) -> None:
        """Close the step before and open the next one."""
        now = time.perf_counter()
        if self.steps:
            self.steps[-1]["all"] = now - self._started
        self._started = now
        self.steps.append(defaultdict(float))

    def wrap(self, name: str, work: Callable[..., Any]) -> Callable[..., Any]:
        """The same function, timed."""

        def timed(*arguments: Any, **named: Any) -> Any:
            self._inner.append(0.0)
            start = time.perf_counter()
            try:
                return work(*arguments, **named)
            finally:
                seconds = time.perf_counter() - start
                inner = self._inner.pop()
                if self._inner:
                    self._inner[-1] += seconds
                if self.steps:
                    self.steps[-1][name] += seconds - inner

        return timed


def build_options() -> argparse.ArgumentParser:
    parser = machine.build_parser(__doc__)
    parser.add_argument("--steps", type=partial(machine.read_count, at_least=2), default=250, help="measured steps of each run")
    parser.add_argument("--save-every", type=partial(machine.read_count, at_least=2), default=100, help="steps between checkpoints")
    return parser


def main(words: Sequence[str] | None = None) -> None:
    options = build_options().parse_args(words)
    machine.prepare(options)
    with tempfile.TemporaryDirectory(prefix="weber-loop-") as name, Path(os.devnull).open("w", encoding="utf-8") as nowhere:
        folder = Path(name)
        model = build_random_model(folder / "model", size=SIZE)
        for way in ("lines", "bars"):
            config = build_run(folder / way, model, num_steps=options.steps, save_every=options.save_every)
            clock = measure(config, _build_watcher(nowhere, way))
            print_table(f"progress as {way}", clock, save_every=options.save_every)


def build_run(folder: Path, model: Path, *, num_steps: int, save_every: int) -> RunConfig:
    """The settings of a run. Its last step is not measured: it ends with the run, not with a next step."""
    return build_config(
        {
            "model": {"path": str(model), "variant": "pocket"},
            "data": [{"path": str(find_examples()), "resolution": RESOLUTION, "bucket_step": 16}],
            "memory": {"device": "cpu", "dtype": "fp32", "gradient_checkpointing": "none"},
            "train": {"steps": NUM_WARM_UP + num_steps + 1},
            "output": {"folder": str(folder), "cache": str(folder.parent / "cache"), "save_every": save_every},
        }
    )


def measure(config: RunConfig, watcher: Watcher) -> Clock:
    """Run to the end with timers in place."""
    clock = Clock()
    with watcher.shown():
        plan = build_plan(config, watcher.report)
        config.output.folder.mkdir()
        store = Store(config.output.cache)
        encode_cache(plan, store, watcher=watcher)
        training = assemble(plan, store, start=Found(0, None, {}), watcher=watcher)
        with timers(clock, training, watcher):
            run(training, watcher, stop=Stop())
    clock.steps.pop()
    return clock


@contextmanager
def timers(clock: Clock, training: Training, watcher: Watcher) -> Iterator[None]:
    """Put timers around the parts of a step; `write_learning_rate` is its first line."""
    loop, saving, step, learner = weber.training.loop, weber.training.saving, weber.training.step, training.learner
    start = clock.wrap("learning rate", loop.write_learning_rate)

    def start_step(*arguments: Any) -> None:
        clock.start_step()
        start(*arguments)

    places: list[tuple[Any, str, str]] = [
        (learner.predictor, "forward", "forward"),
        (torch.Tensor, "backward", "backward"),
        (learner.optimizer, "step", "optimizer"),
        (learner.optimizer, "zero_grad", "zero_grad"),
        (torch.nn.utils, "get_total_norm", "gradient norm"),
        (torch, "_foreach_mul_", "clipping"),
        (Loader, "load", "data"),
        (step, "draw_timesteps", "draws: timesteps"),
        (step, "build_question", "question"),
        (step, "build_losses", "loss"),
        (loop, "start_step", "start_step, the rest"),
        (Follower, "add", "follower, the rest"),
        (Trackers, "write", "metrics"),
        (watcher, "report", "progress"),
        (saving, "save_state", "checkpoint"),
    ]
    with ExitStack() as stack:
        stack.enter_context(mock.patch.object(loop, "write_learning_rate", start_step))
        for place, attribute, name in places:
            stack.enter_context(mock.patch.object(place, attribute, clock.wrap(name, getattr(place, attribute))))
        yield


def print_table(title: str, clock: Clock, *, save_every: int) -> None:
    """Medians over the steps without a checkpoint, in ms and as a share of a step of 60 ms."""
    steps = clock.steps[NUM_WARM_UP:]
    usual = [step for step in steps if not step["checkpoint"]]
    saving = [step["checkpoint"] for step in steps if step["checkpoint"]]
    print(f"\n{title}: {len(usual)} steps, {1e3 * median(step['all'] for step in usual):.1f} ms each")
    for name in NETWORK:
        print(f"  {name:22} {1e3 * median(step[name] for step in usual):8.3f} ms")
    cost = median(step["all"] - sum(step[name] for name in NETWORK) for step in usual)
    share = f"{100 * cost / STEP_SECONDS:5.2f} % of {1e3 * STEP_SECONDS:.0f} ms"
    verdict = "met" if cost <= GOAL * STEP_SECONDS else "MISSED"
    print(f"  {'outside these':22} {1e3 * cost:8.3f} ms  {share}  goal {100 * GOAL:.0f} %: {verdict}")
    parts = list(dict.fromkeys(name for step in usual for name in step if name not in (*NETWORK, "all", "checkpoint")))
    costs = {name: median(step[name] for step in usual) for name in parts}
    costs["the rest"] = median(step["all"] - sum(step[name] for name in (*NETWORK, *parts)) for step in usual)
    for name, seconds in sorted(costs.items(), key=lambda item: -item[1]):
        print(f"    {name:20} {1e3 * seconds:8.3f} ms")
    if saving:
        print(f"  a checkpoint takes {1e3 * median(saving):.1f} ms: {1e3 * median(saving) / save_every:.3f} ms per step")


def _build_watcher(stream: TextIO, way: str) -> Watcher:
    return Watcher(Console(file=stream, force_terminal=way == "bars", width=160))


if __name__ == "__main__":
    main()
