"""What came of steps, read when the host has to know it or a step later, and told to whoever follows the run."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from functools import partial
from itertools import compress

import torch

from weber.errors import TrainingError, WeberError
from weber.memory.device import peak_memory_bytes
from weber.track.health import find_collapse
from weber.track.metrics import Trackers
from weber.track.progress import Watcher
from weber.track.signals import Signals, Use
from weber.training.batch import Batch
from weber.training.blame import find_cause
from weber.training.outcome import Outcome
from weber.training.prepared import Training

SMOOTHING = 0.98


@dataclass(frozen=True)
class Started:
    """A step that the device has done or is at, and its samples."""

    batches: Sequence[Batch]
    outcome: Outcome


@dataclass
class Pace:
    """Smoothed loss and speed for the progress bar."""

    started: float
    loss: float | None = None
    seconds: float | None = None

    def write(self, loss: float | None) -> float:
        """Take in a step's loss, if it has one of what is learned; returns the seconds since `started` or the last call."""
        now = time.perf_counter()
        seconds, self.started = now - self.started, now
        if loss is not None:
            self.loss = loss if self.loss is None else SMOOTHING * self.loss + (1 - SMOOTHING) * loss
        self.seconds = seconds if self.seconds is None else 0.9 * self.seconds + 0.1 * seconds
        return seconds


class Follower:
    """Reads outcomes in the order of their steps: at once, or where the learner has `health`, while the device is at the next step."""

    def __init__(
        self, training: Training, trackers: Trackers, *, signals: Signals, watcher: Watcher, learning_rate: Callable[[int], float]
    ) -> None:
        self._training, self._trackers, self._watcher, self._learning_rate = training, trackers, watcher, learning_rate
        self._signals = signals
        self._unread: list[Started] = []
        self._num_late = 0 if training.learner.health is None else 1
        self._pace = Pace(time.perf_counter())

    def add(self, started: Started) -> None:
        """One more step. Raises what `read` does, for it or the one before."""
        self._unread.append(started)
        self._read_but(self._num_late)

    def read(self) -> None:
        """Every step until now; afterwards the state is that of the last one. Raises what `explain` makes of numbers that are not finite,
        and OSError, after saving, where nothing can be written."""
        self._read_but(0)

    def start_clock(self) -> None:
        """What was done until now is no part of a step's time."""
        self._pace.started = time.perf_counter()

    def _read_but(self, num_left: int) -> None:
        while len(self._unread) > num_left:
            self._tell(self._unread.pop(0))

    def _tell(self, started: Started) -> None:
        plan, saver, step = self._training.plan, self._training.saver, started.outcome.step
        try:
            numbers = started.outcome.read()
        except TrainingError as error:
            raise explain(error, self._training, step=step, batches=started.batches, watcher=self._watcher) from error
        saver.prove()
        self._signals.note(numbers, _list_learned(started))
        done, lr, memory_bytes = step + 1, self._learning_rate(step), peak_memory_bytes(plan.device)
        seconds = self._pace.write(numbers.get("loss"))
        numbers |= {"lr": lr, "seconds": seconds, "epoch": step // plan.batches.steps_per_epoch}
        try:
            self._trackers.write(done, numbers | ({} if memory_bytes is None else {"peak_memory_bytes": memory_bytes}))
        except OSError:
            for other in self._unread:
                other.outcome.read()
            saver.save(done + len(self._unread))
            raise
        self._training.messages.tell_step(done, plan.num_steps, numbers=numbers, seconds=self._pace.seconds)
        self._watcher.report("training", done, plan.num_steps, _describe(self._pace, lr, memory_bytes, device=plan.device))


def _list_learned(started: Started) -> Iterator[Use]:
    """The samples of a step but for those for regularization."""
    return compress(started.outcome.list_uses(), started.outcome.is_learned)


def explain(error: TrainingError, training: Training, *, step: int, batches: Sequence[Batch], watcher: Watcher) -> WeberError:
    """What to say of a step whose numbers are not finite: the cause, if one is found. What is good of the state before it is kept."""
    if training.learner.crew is not None:
        batches = training.loader.load(step, is_whole=True)
    find_files, is_first = partial(training.loader.find_not_finite, step), step == training.start.step
    cause = find_cause(training.learner, batches, find_files=find_files, is_first=is_first, progress=watcher.report)
    if cause is None:
        warn_of_collapse(training, watcher)
        return training.saver.give_up(step, error)
    if step > training.start.step:
        training.saver.save(step)
    return cause


def warn_of_collapse(training: Training, watcher: Watcher) -> None:
    """Say it if nothing was learned, though all numbers were finite."""
    collapse = find_collapse(training.folder)
    if collapse is not None:
        watcher.write(f"Warning: {collapse}")


def _describe(pace: Pace, learning_rate: float, memory_bytes: int | None, *, device: torch.device) -> str:
    speed = f"{1 / pace.seconds:.2f} it/s" if pace.seconds else ""
    what = "peak" if device.type == "cuda" else "process"  # all that it has taken, Python and libraries included
    memory = f" {what} {memory_bytes / 2**30:.1f} GiB" if memory_bytes is not None else ""
    loss = "" if pace.loss is None else f"loss {pace.loss:.4f} "
    return f"{loss}lr {learning_rate:.2e} {speed}{memory}"
