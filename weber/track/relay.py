"""A thread that talks to a tracker elsewhere, so that a run neither waits for it nor ends with it."""

from __future__ import annotations

import queue
import threading
from collections.abc import Callable, Mapping
from functools import partial
from pathlib import Path
from typing import Protocol

from weber.track.jsonl import Numbers

MOST_WAITING = 4096
"""Steps that may wait for a tracker that is slow."""
CLOSING_SECONDS = 60.0
"""What is left has so long to be sent when the run has ended."""
_FAILURES = (OSError, ValueError, RuntimeError)


class Service(Protocol):
    """A tracker of another project. Its calls raise OSError, ValueError or RuntimeError where they fail."""

    def write(self, step: int, numbers: Numbers) -> None:
        """Record what a step measured."""
        ...

    def write_pictures(self, step: int, pictures: Mapping[Path, str]) -> None:
        """Record pictures with their prompts."""
        ...

    def close(self) -> None:
        """Send the rest."""
        ...


class Relay:
    """Hands on to a service what comes after `last_step`: what was written before is there already, and a resumed run repeats it."""

    def __init__(self, name: str, open_service: Callable[[], Service], *, last_step: int) -> None:
        self.name, self.reason, self._last_step = name, "", last_step
        self._waiting: queue.Queue[Callable[[Service], None] | None] = queue.Queue()
        self._thread = threading.Thread(target=self._work, args=(open_service,), name=f"weber {name}", daemon=True)
        self._thread.start()

    def write(self, step: int, numbers: Numbers) -> None:
        """Record what a step measured."""
        if step > self._last_step:
            self._add(partial(_write, step, dict(numbers)))

    def write_pictures(self, step: int, pictures: Mapping[Path, str]) -> None:
        """Record pictures with their prompts."""
        if step > self._last_step or step == 0:
            self._add(partial(_write_pictures, step, dict(pictures)))

    def finish(self) -> None:
        """Nothing more will be added."""
        self._waiting.put(None)

    def close(self) -> str | None:
        """After `finish`: wait for the rest, for a time; returns what is to be said of what was lost."""
        self._thread.join(CLOSING_SECONDS)
        if self._thread.is_alive():
            self.reason = self.reason or "it has not answered in time"
        if not self.reason:
            return None
        return f"{self.name} has not got all of the run: {self.reason}. All of it is in metrics.jsonl."

    def _add(self, call: Callable[[Service], None]) -> None:
        if self._waiting.qsize() >= MOST_WAITING:
            self.reason = self.reason or "it is slower than the run"
        else:
            self._waiting.put(call)

    def _work(self, open_service: Callable[[], Service]) -> None:
        try:
            service = open_service()
        except _FAILURES as error:
            self.reason = _describe(error)
            while self._waiting.get() is not None:
                pass
            return
        while (call := self._waiting.get()) is not None:
            self._call(service, call)
        self._call(service, lambda one: one.close())

    def _call(self, service: Service, call: Callable[[Service], None]) -> None:
        try:
            call(service)
        except _FAILURES as error:
            self.reason = self.reason or _describe(error)


def _write(step: int, numbers: Numbers, service: Service) -> None:
    service.write(step, numbers)


def _write_pictures(step: int, pictures: Mapping[Path, str], service: Service) -> None:
    service.write_pictures(step, pictures)


def _describe(error: Exception) -> str:
    """Its first line."""
    return (str(error).strip().splitlines() or [type(error).__name__])[0].rstrip(".")
