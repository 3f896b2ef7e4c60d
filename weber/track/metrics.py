"""The trackers of a run: one `write` for all of them."""

from __future__ import annotations

import importlib.util
from collections.abc import Callable, Iterator, Mapping
from contextlib import ExitStack, contextmanager
from functools import partial
from pathlib import Path
from typing import Protocol

from weber.config.output import OutputConfig, TrackerName
from weber.errors import MissingExtraError
from weber.track.jsonl import JsonlTracker, Numbers
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
    """Writes to every tracker."""

    def __init__(self, trackers: list[Tracker]) -> None:
        self._trackers = trackers

    def write(self, step: int, numbers: Numbers) -> None:
        """Record what a step measured."""
        for tracker in self._trackers:
            tracker.write(step, numbers)

    def write_pictures(self, step: int, pictures: Mapping[Path, str]) -> None:
        """Record pictures with their prompts."""
        for tracker in self._trackers:
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
        trackers: list[Tracker] = [jsonl]
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
            trackers.append(stack.enter_context(TensorboardTracker(facts)))
        relays = [_open_relay(name, facts) for name in config.trackers if name in _SERVICES]
        stack.callback(_close_relays, relays, say)
        yield Trackers([*trackers, *relays])


def _open_relay(name: TrackerName, facts: RunFacts) -> Relay:
    return Relay(name, partial(_SERVICES[name], facts), last_step=facts.last_step)


def _close_relays(relays: list[Relay], say: Callable[[str], None]) -> None:
    for relay in relays:
        relay.finish()
    for relay in relays:
        lost = relay.close()
        if lost is not None:
            say(lost)
