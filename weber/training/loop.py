"""The run: step, watch, paint, save, until it is done or asked to stop."""

from __future__ import annotations

import shlex
import signal
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from types import FrameType

import torch

from weber.checkpoint.retention import save_space
from weber.errors import CacheError, TrainingError
from weber.memory.device import peak_memory_bytes
from weber.optim.libraries import evaluated
from weber.optim.schedules import build_schedule, write_learning_rate
from weber.planning.plan import Plan
from weber.track.metrics import open_trackers
from weber.track.progress import Watcher
from weber.training.batch import Loader
from weber.training.due import is_due
from weber.training.learner import Learner
from weber.training.pictures import Painter
from weber.training.state import build_learned, save_state
from weber.training.step import train_step

SMOOTHING = 0.98


@dataclass(frozen=True)
class Training:
    """A run that is ready to go on after `step` finished steps."""

    plan: Plan
    learner: Learner
    loader: Loader
    painter: Painter
    run_folder: Path
    step: int


@dataclass
class Stop:
    """Set by Ctrl-C (SIGINT) or SIGTERM: finish the step, save, and leave."""

    asked: bool = False


@dataclass
class Pace:
    """Smoothed loss and speed for the progress bar."""

    loss: float | None = None
    seconds: float | None = None
    started: float = field(default_factory=time.perf_counter)

    def write(self, loss: float | None) -> float:
        """Take in a step's loss, if it has one of what is learned; returns the seconds since `started` or the last call."""
        now = time.perf_counter()
        seconds, self.started = now - self.started, now
        if loss is not None:
            self.loss = loss if self.loss is None else SMOOTHING * self.loss + (1 - SMOOTHING) * loss
        self.seconds = seconds if self.seconds is None else 0.9 * self.seconds + 0.1 * seconds
        return seconds


def run(training: Training, watcher: Watcher) -> Path:
    """Train to the end; returns the finished adapter or model. A stop leaves a checkpoint and says how to go on.

    Raises TrainingError at a loss that is not finite, or CacheError at a damaged sample, after saving; KeyboardInterrupt after a stop
    that was asked for.
    """
    plan, folder, learner = training.plan, training.run_folder, training.learner
    config, num_steps = plan.resolved, plan.num_steps
    learning_rate = build_schedule(config.optim, num_steps=num_steps)
    pace = Pace()
    with open_trackers(config.output, folder, done_steps=training.step) as trackers, training.loader, stop_signals(watcher) as stop:
        if is_due(training.step, every=config.sampling.every, num_steps=num_steps):
            with evaluated(learner.optimizer):
                training.painter.paint(training.step, watcher.report)
        if training.painter.lacks_base:
            watcher.write("Sheets will lack the base model's pictures of these prompts, because it has been trained itself since.")
        for step in range(training.step, num_steps):
            pace.started = time.perf_counter()
            write_learning_rate(learner.optimizer, learning_rate(step))
            try:
                numbers = train_step(learner, training.loader.load(step), step=step)
            except (TrainingError, CacheError):
                if all(torch.isfinite(parameter).all() for _, parameter in learner.parameters):
                    save_state(folder, learner, plan=plan, step=step)
                    watcher.write(f"Saved checkpoint-{step:06d} in {folder}.")
                else:
                    watcher.write(f"What is trained is itself no longer finite and was not saved; {folder} holds the earlier checkpoints.")
                raise
            done = step + 1
            seconds = pace.write(numbers.get("loss"))
            memory_bytes = peak_memory_bytes(plan.device)
            numbers |= {"lr": learning_rate(step), "seconds": seconds, "epoch": step // plan.batches.steps_per_epoch}
            trackers.write(done, numbers | ({} if memory_bytes is None else {"peak_memory_bytes": memory_bytes}))
            watcher.report("training", done, num_steps, _note(pace, learning_rate(step), memory_bytes, device=plan.device))
            if is_due(done, every=config.output.save_every, num_steps=num_steps) or stop.asked:
                save_state(folder, learner, plan=plan, step=done)
                save_space(folder, keep_last=config.output.keep_last)
            if is_due(done, every=config.sampling.every, num_steps=num_steps) and not stop.asked:
                with evaluated(learner.optimizer):
                    training.painter.paint(done, watcher.report)
            if stop.asked and done < num_steps:
                watcher.write(f"Stopped after step {done} of {num_steps}; everything is saved. To go on:")
                watcher.write(f"  weber train {shlex.quote(str(folder / 'config.toml'))} --resume")
                raise KeyboardInterrupt
    with evaluated(learner.optimizer):
        finished, *others = plan.kind.finish(folder, build_learned(learner, plan=plan, step=num_steps), progress=watcher.report)
    for path in others:
        watcher.write(f"Wrote {path}")
    return finished


@contextmanager
def stop_signals(watcher: Watcher) -> Iterator[Stop]:
    """Turn the first Ctrl-C or SIGTERM into a wish; a second one acts at once. Outside the main thread nothing is changed."""
    stop = Stop()
    if threading.current_thread() is not threading.main_thread():
        yield stop
        return
    previous = {number: signal.getsignal(number) for number in (signal.SIGINT, signal.SIGTERM)}

    def wish(number: int, frame: FrameType | None) -> None:
        stop.asked = True
        watcher.write("Stopping after this step; once more to leave at once, back to the last checkpoint.")
        for one, handler in previous.items():
            signal.signal(one, handler)

    for number in previous:
        signal.signal(number, wish)
    try:
        yield stop
    finally:
        for number, handler in previous.items():
            signal.signal(number, handler)


def _note(pace: Pace, learning_rate: float, memory_bytes: int | None, *, device: torch.device) -> str:
    speed = f"{1 / pace.seconds:.2f} it/s" if pace.seconds else ""
    what = "peak" if device.type == "cuda" else "process"  # all that it has taken, Python and libraries included
    memory = f" {what} {memory_bytes / 2**30:.1f} GiB" if memory_bytes is not None else ""
    loss = "" if pace.loss is None else f"loss {pace.loss:.4f} "
    return f"{loss}lr {learning_rate:.2e} {speed}{memory}"
