"""The trackers of a run: one `write` for all of them."""

from __future__ import annotations

import importlib.util
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import ExitStack, contextmanager
from functools import partial
from pathlib import Path
from typing import Protocol

from weber.config.output import OutputConfig, TrackerName
from weber.errors import MissingExtraError
from weber.track.jsonl import READINGS_NAME, JsonlTracker, Numbers
from weber.track.relay import Relay, Service
from weber.track.run_facts import RunFacts, read_identifier
from weber.track.tensorboard import TensorboardTracker
from weber.track.trackio import TrackioService
from weber.track.wandb import WandbService, check_login

_SERVICES: Mapping[TrackerName, Callable[[RunFacts], Service]] = {"trackio": TrackioService, "wandb": WandbService}
"""Those that are spoken to beside the run."""


class Tracker(Protocol):
    """Anything that records numbers per step, and pictures."""

    def write(self, step: int, numbers: Numbers) -> None:
        """Record what a step measured."""
        ...

    def write_pictures(self, step: int, pictures: Mapping[Path, str]) -> None:
        """Record pictures with their prompts."""
        ...


class Trackers:
    """Writes to every tracker: `metrics` has a line for each step, `readings` what is measured now and then, `others` both."""

    def __init__(self, metrics: Tracker, readings: Tracker, *, others: Sequence[Tracker] = ()) -> None:
        self._metrics, self._readings, self._others = metrics, readings, others

    def write(self, step: int, numbers: Numbers) -> None:
        """Record what a step measured; others are told the speed too, where there is a time."""
        self._metrics.write(step, numbers)
        seconds = numbers.get("seconds")
        speed = {"steps_per_second": 1 / seconds} if isinstance(seconds, float) and seconds > 0 else {}
        for tracker in self._others:
            tracker.write(step, {**numbers, **speed})

    def write_reading(self, step: int, reading: Numbers) -> None:
        """Record what was measured after so many steps; others get the numbers of it."""
        self._readings.write(step, reading)
        numbers = {name: value for name, value in reading.items() if not isinstance(value, str)}
        for tracker in self._others if numbers else ():
            tracker.write(step, numbers)

    def write_pictures(self, step: int, pictures: Mapping[Path, str]) -> None:
        """Record pictures with their prompts."""
        for tracker in self._others:
            tracker.write_pictures(step, pictures)


def check_trackers(config: OutputConfig) -> None:
    """Raise MissingExtraError where a tracker is not installed, or ConfigError where it needs a key that is not there."""
    for name in config.trackers:
        if importlib.util.find_spec(name) is None:
            raise MissingExtraError(
                f"{name} is not installed.",
                got=f'output.trackers with "{name}"',
                fix=f"pip install 'weber[{name}]', or take it out of output.trackers (metrics.jsonl is always written)",
            )
    if "wandb" in config.trackers:
        check_login()


@contextmanager
def open_trackers(
    config: OutputConfig, *, settings: Mapping[str, object], summary: str, done_steps: int, say: Callable[[str], None]
) -> Iterator[Trackers]:
    """The trackers that the config asks for, of the run in `config.folder`, closed at the end. What others lost is said then.

    `settings` of the run by their sections, `summary` of its plan.
    """
    with ExitStack() as stack:
        jsonl = stack.enter_context(JsonlTracker(config.folder, done_steps=done_steps))
        readings = stack.enter_context(JsonlTracker(config.folder, done_steps=done_steps, name=READINGS_NAME))
        others = list[Tracker]()
        facts = RunFacts(
            folder=config.folder,
            project=config.project or "weber",
            name=config.run_name or config.folder.absolute().name,
            identifier=read_identifier(config.folder, is_resumed=done_steps > 0) if config.trackers else "",
            settings=settings,
            summary=summary,
            done_steps=done_steps,
            last_step=jsonl.last_step,
        )
        if "tensorboard" in config.trackers:
            others.append(stack.enter_context(TensorboardTracker(facts)))
        relays = [_open_relay(name, facts) for name in config.trackers if name in _SERVICES]
        stack.callback(_close_relays, relays, say)
        yield Trackers(jsonl, readings, others=[*others, *relays])


def _open_relay(name: TrackerName, facts: RunFacts) -> Relay:
    return Relay(name, partial(_SERVICES[name], facts), last_step=facts.last_step)


def _close_relays(relays: list[Relay], say: Callable[[str], None]) -> None:
    for relay in relays:
        relay.finish()
    for relay in relays:
        lost = relay.close()
        if lost is not None:
            say(lost)
