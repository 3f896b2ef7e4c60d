"""The trackers of a run: one `write` for all of them."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import ExitStack, contextmanager
from pathlib import Path
from typing import Protocol

from weber.config.output import OutputConfig
from weber.track.jsonl import READINGS_NAME, JsonlTracker, Numbers
from weber.track.tensorboard import TensorboardTracker


class Tracker(Protocol):
    """Anything that records numbers per step."""

    def write(self, step: int, numbers: Numbers) -> None:
        """Record what a step measured."""
        ...


class Trackers:
    """Writes to every tracker: `of_steps` have a line for each step, `of_readings` what is measured now and then."""

    def __init__(self, of_steps: Sequence[Tracker], of_readings: Sequence[Tracker] = ()) -> None:
        self._of_steps, self._of_readings = of_steps, of_readings

    def write(self, step: int, numbers: Numbers) -> None:
        """Record what a step measured."""
        for tracker in self._of_steps:
            tracker.write(step, numbers)

    def write_reading(self, step: int, numbers: Numbers) -> None:
        """Record what was measured after so many steps."""
        for tracker in self._of_readings:
            tracker.write(step, numbers)


@contextmanager
def open_trackers(config: OutputConfig, run_folder: Path, *, done_steps: int) -> Iterator[Trackers]:
    """The trackers that the config asks for, closed at the end."""
    with ExitStack() as stack:
        of_steps: list[Tracker] = [stack.enter_context(JsonlTracker(run_folder, done_steps=done_steps))]
        of_readings: list[Tracker] = [stack.enter_context(JsonlTracker(run_folder, done_steps=done_steps, name=READINGS_NAME))]
        if config.tensorboard:
            both = stack.enter_context(TensorboardTracker(run_folder, done_steps=done_steps))
            of_steps.append(both)
            of_readings.append(both)
        yield Trackers(of_steps, of_readings)
