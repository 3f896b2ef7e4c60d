"""The trackers of a run: one `write` for all of them."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from pathlib import Path
from typing import Protocol

from weber.config.output import OutputConfig
from weber.track.jsonl import JsonlTracker, Numbers
from weber.track.tensorboard import TensorboardTracker


class Tracker(Protocol):
    """Anything that records numbers per step."""

    def write(self, step: int, numbers: Numbers) -> None:
        """Record what a step measured."""
        ...


class Trackers:
    """Writes to every tracker."""

    def __init__(self, trackers: list[Tracker]) -> None:
        self._trackers = trackers

    def write(self, step: int, numbers: Numbers) -> None:
        """Record what a step measured."""
        for tracker in self._trackers:
            tracker.write(step, numbers)


@contextmanager
def open_trackers(config: OutputConfig, run_folder: Path, *, done_steps: int) -> Iterator[Trackers]:
    """The trackers that the config asks for, closed at the end."""
    with ExitStack() as stack:
        trackers: list[Tracker] = [stack.enter_context(JsonlTracker(run_folder, done_steps=done_steps))]
        if config.tensorboard:
            trackers.append(stack.enter_context(TensorboardTracker(run_folder, done_steps=done_steps)))
        yield Trackers(trackers)
