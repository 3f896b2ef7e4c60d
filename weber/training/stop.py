"""A wish to end a run: long work looks for it where it can leave without losing anything."""

from __future__ import annotations

import signal
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from types import FrameType

from weber.progress import Progress

SIGNALS = [getattr(signal, name) for name in ("SIGINT", "SIGTERM", "SIGHUP") if hasattr(signal, name)]
"""Ctrl-C, what schedulers send, and a terminal that is closed."""


class Stopped(KeyboardInterrupt):
    """Work was left because somebody asked for it."""


@dataclass
class Stop:
    """Whether somebody wants the run to end: said once, or asked of `ask` again and again."""

    ask: Callable[[], bool] | None = None
    _is_said: bool = field(default=False, init=False)

    @property
    def asked(self) -> bool:
        """Whether it is wanted by now."""
        if not self._is_said and self.ask is not None:
            self._is_said = bool(self.ask())
        return self._is_said

    def say(self) -> None:
        """Want it."""
        self._is_said = True

    def guard(self, progress: Progress) -> Progress:
        """`progress`, at which work is left (Stopped) when somebody has asked for it."""

        def report(what: str, done: int, total: int) -> None:
            progress(what, done, total)
            if self.asked:
                raise Stopped

        return report


@contextmanager
def stop_signals(stop: Stop, *, write: Callable[[str], None]) -> Iterator[None]:
    """Turn Ctrl-C, SIGTERM and SIGHUP into a wish, said with `write`; a second Ctrl-C or SIGTERM acts at once.

    A closed terminal sends SIGHUP more than once, so that is never acted upon twice. Signals that are ignored, as with `nohup`, stay
    so, and outside of the main thread nothing is changed.
    """
    if threading.current_thread() is not threading.main_thread():
        yield
        return
    previous = {number: handler for number in SIGNALS if (handler := signal.getsignal(number)) not in (signal.SIG_IGN, None)}

    def wish(number: int, frame: FrameType | None) -> None:
        if not stop.asked:
            stop.say()
            write("Stopping as soon as nothing is lost by it; once more to leave at once, back to the last checkpoint.")
        for one in (signal.SIGINT, signal.SIGTERM):
            if one in previous:
                signal.signal(one, previous[one])

    for number in previous:
        signal.signal(number, wish)
    try:
        yield
    finally:
        for number, handler in previous.items():
            signal.signal(number, handler)
