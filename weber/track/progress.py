"""Progress for a person: a bar on a terminal, plain lines elsewhere; or for a program that listens."""

from __future__ import annotations

import logging
import time
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from typing import Any, TextIO, cast

from rich.console import Console
from rich.progress import (
    BarColumn,
    MofNCompleteColumn,
    Progress,
    ProgressColumn,
    Task,
    TaskID,
    TextColumn,
    TimeElapsedColumn,
    TimeRemainingColumn,
)
from rich.text import Text

from weber.progress import Progress as Listen

PLAIN_SECONDS = 10.0
_LOG = logging.getLogger("weber")


class Lasting:
    """A stream for what a long job says: whoever reads it may go away, by closing a terminal or the end of a pipe, and the job goes on."""

    def __init__(self, stream: TextIO) -> None:
        self._stream = stream

    def write(self, text: str) -> int:
        """Write, if anybody reads."""
        with suppress(OSError):
            self._stream.write(text)
        return len(text)

    def flush(self) -> None:
        """Flush, if anybody reads."""
        with suppress(OSError):
            self._stream.flush()

    def __getattr__(self, name: str) -> Any:
        return getattr(self._stream, name)


def build_console(stream: TextIO) -> Console:
    """A console for a `Watcher`."""
    return Console(file=cast(TextIO, Lasting(stream)))


class _SpeedColumn(ProgressColumn):
    """How many are done in a second, while they are being done."""

    def render(self, task: Task) -> Text:
        """See rich."""
        return Text("" if task.speed is None else f"{task.speed:.3g}/s")


class Watcher:
    """Shows any number of tasks by name; `report` is a `weber.progress.Progress`. Enter it as a context."""

    def __init__(self, console: Console) -> None:
        self.console = console
        self._bars = Progress(
            TextColumn("{task.description}"),
            BarColumn(),
            MofNCompleteColumn(),
            _SpeedColumn(),
            TimeElapsedColumn(),
            TextColumn("eta"),
            TimeRemainingColumn(),
            TextColumn("{task.fields[note]}"),
            console=console,
            disable=not console.is_terminal,
        )
        self._tasks: dict[str, TaskID] = {}
        self._last_lines: dict[str, float] = {}

    def report(self, what: str, done: int, total: int, note: str = "") -> None:
        """Show how much of a task is done; a finished task leaves the screen."""
        if self.console.is_terminal:
            self._draw_bar(what, done, total, note)
            return
        now, last = time.monotonic(), self._last_lines.get(what)
        if last is None or done >= total or now - last >= PLAIN_SECONDS:
            self._last_lines[what] = now
            if total > 0 and not (last is None and done == 0):
                self.write(f"{what}: {done}/{total} {note}".rstrip())
        if done >= total:
            self._last_lines.pop(what, None)

    def write(self, line: str) -> None:
        """Print a line above the bars."""
        self.console.print(line, markup=False, highlight=False, soft_wrap=True)

    def _draw_bar(self, what: str, done: int, total: int, note: str) -> None:
        if what not in self._tasks:
            self._tasks[what] = self._bars.add_task(what, total=total, note=note)
        self._bars.update(self._tasks[what], completed=done, total=total, note=note)
        if done >= total:
            self._bars.remove_task(self._tasks.pop(what))

    @contextmanager
    def shown(self) -> Iterator[Watcher]:
        """Draw the bars while the context lasts."""
        with self._bars:
            yield self


class Listener(Watcher):
    """Tells a program instead of a person: tasks to a callable, lines to the log `weber`."""

    def __init__(self, listen: Listen) -> None:
        super().__init__(Console(stderr=True))
        self._listen = listen

    def report(self, what: str, done: int, total: int, note: str = "") -> None:
        """See `Watcher.report`; without the note."""
        self._listen(what, done, total)

    def write(self, line: str) -> None:
        """See `Watcher.write`."""
        _LOG.info(line)

    @contextmanager
    def shown(self) -> Iterator[Watcher]:
        """Nothing is drawn."""
        yield self
