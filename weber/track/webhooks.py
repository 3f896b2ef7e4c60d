"""The addresses that are told how a run goes, and the one place that the run tells it to."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path

from weber.config.webhooks import WebhookConfig
from weber.errors import WeberError
from weber.track.events import (
    LEVELS,
    Event,
    build_checkpoint,
    build_error,
    build_notice,
    build_pictures,
    build_stage,
    build_status,
    build_step,
)
from weber.track.posts import Post, build_discord, build_raw
from weber.track.progress import Watcher
from weber.track.record import Record
from weber.track.sender import Sender

_WARNING = "Warning: "
_TRAINING = "training"
_STAGE_SECONDS = 5.0
_EVERY_RAW = 10
Count = Callable[[int | str], int]


class Address:
    """One of `output.webhooks`: what it wants to hear, and who sends it."""

    def __init__(self, config: WebhookConfig, *, number: int, job: str) -> None:
        self.name = f"output.webhooks.{number} ({config.kind})"
        self._config, self._job = config, job
        self._every: int | None = None
        self._is_said = False
        headers = {} if config.token is None else {"X-API-Key": config.token}
        self.sender = Sender(config.url, build=self._build, headers=headers)

    def count(self, count: Count) -> None:
        """Say how many steps there are between messages of how far the run is."""
        every = self._config.every
        if every is None and self._config.kind == "raw":
            every = _EVERY_RAW
        self._every = None if every is None else count(every)

    def tell(self, event: Event) -> None:
        """Send it, if it is wanted here."""
        is_heard = event.is_for_people or self._config.kind == "raw"
        if is_heard and LEVELS.index(event.level) <= LEVELS.index(self._config.level):
            self.sender.add(event)

    def tell_step(self, event: Event, *, done: int, total: int) -> None:
        """Send how far the run is, if it is time for that."""
        if self._every is not None and (done % self._every == 0 or done == total):
            self.tell(event)

    def close(self) -> str | None:
        """Wait for the rest; returns what is to be said of what was lost."""
        num_lost = self.sender.close()
        if num_lost == 0:
            return None
        messages = "1 message" if num_lost == 1 else f"{num_lost} messages"
        return f"Lost {messages} to {self.name}: {self.sender.reason}."

    def _build(self, event: Event) -> Iterable[Post]:
        if self._config.kind == "raw":
            return [build_raw(event, job=self._job)]
        return build_discord(event, prefix=self._config.message_prefix or self._job)


class Messages:
    """What a run tells others, and its own record. Nothing here waits or fails; without any of them nothing happens."""

    def __init__(self, addresses: Sequence[Address | Record] = ()) -> None:
        self._addresses = addresses

    def start(self, first: int, total: int, *, count: Count) -> None:
        """Training begins after `first` steps. `count`: steps of an `Every`."""
        for address in self._addresses:
            address.count(count)
        begins = f"Training goes on after step {first} of {total}" if first else f"Training begins: {total} steps"
        self.tell(build_status("running", begins))

    def tell(self, event: Event) -> None:
        """Something has happened."""
        for address in self._addresses:
            address.tell(event)

    def tell_step(self, done: int, total: int, *, numbers: Mapping[str, object], seconds: float | None) -> None:
        """A step is done. `seconds`: what one takes."""
        if self._addresses:
            event = build_step(done, total, numbers=numbers, seconds=seconds)
            for address in self._addresses:
                address.tell_step(event, done=done, total=total)

    def tell_checkpoint(self, path: Path) -> None:
        """The state of the run was saved there."""
        self.tell(build_checkpoint(path))

    def tell_pictures(self, step: int, *, prompts: Sequence[str], files: Sequence[Path]) -> None:
        """The run's prompts were painted after that step."""
        self.tell(build_pictures(step, prompts=prompts, files=files))

    def finish(self, result: Path) -> None:
        """The run has come to its end."""
        self.tell(build_checkpoint(result, is_final=True))
        self.tell(build_status("completed", f"Training is done; the result is {result.name}"))

    def fail(self, error: BaseException) -> None:
        """The run has ended before its time."""
        if isinstance(error, KeyboardInterrupt):
            self.tell(build_status("cancelled", "The run was stopped; it can go on from its last checkpoint"))
            return
        text = str(error) if isinstance(error, WeberError) else f"{type(error).__name__}: {error}"
        self.tell(build_error(text))
        self.tell(build_status("failed", f"The run has failed: {text.partition(chr(10))[0]}", level="error"))


SILENT = Messages()
"""Tells nobody."""


class Told(Watcher):
    """A watcher whose lines and stages are told to `messages` too, and all of it to the run's record."""

    def __init__(self, watcher: Watcher, messages: Messages, *, record: Record) -> None:
        super().__init__(watcher.console)
        self._watcher, self._messages, self._record = watcher, messages, record
        self._last: dict[str, float] = {}

    def report(self, what: str, done: int, total: int, note: str = "") -> None:
        """See `Watcher.report`; of a stage others hear its start, its end, and every few seconds how far it is."""
        self._watcher.report(what, done, total, note)
        if what == _TRAINING:
            return  # steps are told by themselves, with their numbers
        self._record.report(what, done, total)
        now, last = time.monotonic(), self._last.get(what)
        if done >= total:
            self._last.pop(what, None)
        elif last is not None and now - last < _STAGE_SECONDS:
            return
        else:
            self._last[what] = now
        if total > 0:
            self._messages.tell(build_stage(what, done=done, total=total))

    def write(self, line: str) -> None:
        """See `Watcher.write`."""
        self._watcher.write(line)
        self._messages.tell(build_notice(line, level="warning" if line.startswith(_WARNING) else "debug"))

    @contextmanager
    def shown(self) -> Iterator[Watcher]:
        """See `Watcher.shown`."""
        with self._watcher.shown():
            yield self


class Opened:
    """`output.webhooks` and the run's own record while it lasts: a context manager. How the run ends is told, and then what was lost is
    said. `record` has to be opened when the run's folder is there."""

    def __init__(self, configs: Sequence[WebhookConfig], *, job: str, watcher: Watcher) -> None:
        self._watcher = watcher
        self._addresses = [Address(config, number=number, job=job) for number, config in enumerate(configs)]
        self.record = Record()
        self.messages = Messages([self.record, *self._addresses])
        self.watcher = Told(watcher, self.messages, record=self.record)

    def __enter__(self) -> Opened:
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, trace: object) -> None:
        if error is not None:
            self.messages.fail(error)
        for address in self._addresses:
            address.sender.finish()
        for address in self._addresses:
            lost = address.close()
            if lost is not None:
                self._watcher.write(lost)
