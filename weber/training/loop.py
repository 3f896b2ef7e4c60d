"""The run: step, watch, save, paint, until it is done or asked to stop."""

from __future__ import annotations

import shlex
import time
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path

import torch

from weber.checkpoint.resume import Found
from weber.checkpoint.save import CONFIG_NAME
from weber.errors import CacheError, CheckpointError, TrainingError, WeberError
from weber.memory.device import peak_memory_bytes
from weber.optim.libraries import evaluated
from weber.optim.schedules import build_schedule, write_learning_rate
from weber.planning.plan import Plan
from weber.results.finished import clear_staged, publish
from weber.track.health import find_collapse
from weber.track.metrics import open_trackers
from weber.track.progress import Watcher
from weber.training.batch import Batch, Loader
from weber.training.blame import find_cause
from weber.training.due import is_due
from weber.training.learner import Learner
from weber.training.pictures import Painter
from weber.training.saving import Saver
from weber.training.state import build_learned
from weber.training.step import train_step
from weber.training.stop import Stop, Stopped

SMOOTHING = 0.98


@dataclass(frozen=True)
class Training:
    """A run that is ready to go on after the steps of `start`."""

    plan: Plan
    learner: Learner
    loader: Loader
    painter: Painter
    saver: Saver
    start: Found

    @property
    def folder(self) -> Path:
        """The run folder."""
        return self.plan.resolved.output.folder


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


def run(training: Training, watcher: Watcher, *, stop: Stop) -> Path:
    """Train to the end; returns the finished adapter or model. A stop leaves a checkpoint and says how to go on.

    Raises TrainingError at a loss that is not finite, or CacheError at a damaged sample, after saving what is good; KeyboardInterrupt
    after a stop that was asked for.
    """
    plan, learner, saver, num_steps = training.plan, training.learner, training.saver, training.plan.num_steps
    learning_rate = build_schedule(plan.resolved.optim, num_steps=num_steps)
    pace, first = Pace(), training.start.step
    paint_every = plan.count_steps(plan.resolved.sampling.every)
    _greet(training, watcher)
    with open_trackers(plan.resolved.output, training.folder, done_steps=first) as trackers, training.loader:
        if is_due(first, every=paint_every, num_steps=num_steps):
            _paint(training, first, watcher, stop=stop)
        for step in range(first, num_steps):
            _leave_if_asked(training, step, watcher, stop=stop)
            pace.started = time.perf_counter()
            write_learning_rate(learner.optimizer, learning_rate(step))
            numbers = _take_step(training, step, watcher)
            saver.prove()
            for news in () if learner.compiling is None else learner.compiling.list_news():
                watcher.write(news)
            done = step + 1
            seconds = pace.write(numbers.get("loss"))
            memory_bytes = peak_memory_bytes(plan.device)
            numbers |= {"lr": learning_rate(step), "seconds": seconds, "epoch": step // plan.batches.steps_per_epoch}
            try:
                trackers.write(done, numbers | ({} if memory_bytes is None else {"peak_memory_bytes": memory_bytes}))
            except OSError:
                saver.save(done)
                raise
            watcher.report("training", done, num_steps, _note(pace, learning_rate(step), memory_bytes, device=plan.device))
            if saver.is_due(done) or stop.asked:
                saver.save(done)
            if is_due(done, every=paint_every, num_steps=num_steps) and not stop.asked:
                _paint(training, done, watcher, stop=stop)
    saver.prove()
    return _finish(training, watcher)


def build_command(plan: Plan) -> str:
    """What goes on with a run."""
    return f"weber train {shlex.quote(str(plan.resolved.output.folder / CONFIG_NAME))} --resume"


def _greet(training: Training, watcher: Watcher) -> None:
    """What a person should know of the pictures before the first step."""
    away = training.painter.put_away_others()
    if away is not None:
        watcher.write(f"The pictures until now are of other prompts or settings; they are now in {away}.")
    if training.painter.lacks_base and training.start.step > 0:
        watcher.write("Sheets will lack the base model's pictures of these prompts, because it has been trained itself since.")


def _take_step(training: Training, step: int, watcher: Watcher) -> dict[str, float]:
    """One step; where its numbers are not finite, what is good of the state before it is kept, and the cause is told."""
    batches: list[Batch] = []
    try:
        batches += training.loader.load(step)
        return train_step(training.learner, batches, step=step)
    except CacheError:
        training.saver.save(step)
        watcher.write(f"Saved the state after step {step} in {training.folder}.")
        raise
    except TrainingError as error:
        find_files, is_first = partial(training.loader.find_not_finite, step), step == training.start.step
        cause = find_cause(training.learner, batches, find_files=find_files, is_first=is_first, progress=watcher.report)
        if cause is not None:
            if step > training.start.step:
                training.saver.save(step)
            raise cause from error
        _warn(training, watcher)
        raise training.saver.give_up(step, error) from error


def _paint(training: Training, step: int, watcher: Watcher, *, stop: Stop) -> None:
    """Paint the run's prompts. Pictures are not worth a run: it goes on without what cannot be written, and is saved before it ends."""
    try:
        with evaluated(training.learner.optimizer):
            training.painter.paint(step, stop.guard(watcher.report))
    except Stopped:
        watcher.write(f"Stopped while painting: the pictures of step {step} are left out, and painted if the run goes on from there.")
    except OSError as error:
        reason = error.strerror or str(error)
        watcher.write(f"The pictures of step {step} could not be written ({reason}); the run goes on without them.")
    except (torch.OutOfMemoryError, WeberError):
        if step > training.start.step:
            training.saver.save(step)
        raise


def _leave_if_asked(training: Training, step: int, watcher: Watcher, *, stop: Stop) -> None:
    """Save the state of `step` finished steps and leave, where somebody wants that."""
    if not stop.asked:
        return
    if step > training.start.step:
        training.saver.save(step)
    saved = "everything is saved" if step > 0 else "there is nothing to be saved yet"
    watcher.write(f"Stopped after step {step} of {training.plan.num_steps}; {saved}. To go on:")
    watcher.write(f"  {build_command(training.plan)}")
    raise Stopped


def _finish(training: Training, watcher: Watcher) -> Path:
    """Write the finished results, and say where everything is."""
    plan, learner = training.plan, training.learner
    staged = clear_staged(training.folder)
    try:
        with evaluated(learner.optimizer):
            written = plan.kind.finish(staged, build_learned(learner, plan=plan, step=plan.num_steps), progress=watcher.report)
        finished, *others = publish(training.folder, training.saver.configs, written=written)
    except OSError as error:
        raise CheckpointError(
            f"The results could not be written; the checkpoint of step {plan.num_steps} is whole.",
            got=f"{error.strerror or error} in {training.folder}",
            fix=f"free space on that disk, then write them with: {build_command(plan)}",
        ) from error
    for path in others:
        watcher.write(f"Wrote {path}")
    _warn(training, watcher)
    sheet = training.painter.find_last_sheet()
    if sheet is not None:
        watcher.write(f"The pictures are in {sheet.parent}; the last sheet is {sheet}")
    return finished


def _warn(training: Training, watcher: Watcher) -> None:
    """Say it if nothing was learned, though all numbers were finite."""
    collapse = find_collapse(training.folder)
    if collapse is not None:
        watcher.write(f"Warning: {collapse}")


def _note(pace: Pace, learning_rate: float, memory_bytes: int | None, *, device: torch.device) -> str:
    speed = f"{1 / pace.seconds:.2f} it/s" if pace.seconds else ""
    what = "peak" if device.type == "cuda" else "process"  # all that it has taken, Python and libraries included
    memory = f" {what} {memory_bytes / 2**30:.1f} GiB" if memory_bytes is not None else ""
    loss = "" if pace.loss is None else f"loss {pace.loss:.4f} "
    return f"{loss}lr {learning_rate:.2e} {speed}{memory}"
