"""Sending beside a run: nobody waits for it until the run is done, and no failure of it is one of the run."""

from __future__ import annotations

import shutil
import threading
import time
from collections.abc import Callable
from pathlib import Path

from weber.config.publish import PublishConfig
from weber.errors import PublishError, WeberError
from weber.progress import ignore_progress
from weber.sharing.folder import Folder, clear_staged, create_staged, write_folder
from weber.sharing.hub import LOGIN, has_token
from weber.sharing.send import build_command, build_message, send

Write = Callable[[str], None]
_POLL_SECONDS = 0.05


class Publisher:
    """Sends what a run has learned, as its settings say. A context manager; without a place nothing happens.

    One thread sends; of what waits only the newest is kept. Lines are written with `write` by whoever calls, never by the thread.
    """

    def __init__(self, config: PublishConfig, *, folder: Path, write: Write) -> None:
        self._config, self._folder, self._write = config, folder, write
        self._changed, self._gone = threading.Condition(), threading.Event()
        self._waiting: Folder | None = None
        self._is_closing = self._is_finished = self._is_busy = False
        self._sent: str | None = None
        self._reason: WeberError | None = None
        self._thread = threading.Thread(target=self._work, name="weber publish", daemon=True)

    def __enter__(self) -> Publisher:
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, trace: object) -> None:
        if self._config.to is None:
            return
        self._gone.set()
        with self._changed:
            is_left = self._waiting is not None or self._is_busy or self._reason is not None
            self._is_closing = True
            self._changed.notify()
        if self._thread.ident is not None:
            self._thread.join(_POLL_SECONDS)
        if is_left and not self._is_finished:
            self._write(f"Not all checkpoints were sent to {self._config.to}. What is there now is sent by: {self._command}")
        if self._folder.is_dir() and not self._thread.is_alive():
            clear_staged(self._folder)

    def start(self) -> None:
        """The run begins: say now what would keep its result from being sent."""
        if self._config.to is None:
            return
        clear_staged(self._folder)
        if self._config.is_to_hub and not has_token():
            self._write(f"Warning: There is no token of the hub, so nothing can be sent to {self._config.to}: {LOGIN}. The run goes on.")

    def add(self, checkpoint: Path) -> None:
        """A checkpoint is there: send it, if that is wanted."""
        if self._config.to is not None and self._config.when == "checkpoints":
            self._stage(checkpoint)

    def finish(self, stop: Callable[[], bool], report: Callable[[str, int, int], None]) -> None:
        """The run is done: send its result, and wait for that. Nothing here ends it: what could not be sent is said, with what sends it."""
        if self._config.to is None:
            return
        self._sent = None
        is_staged = self._stage(self._folder)
        with self._changed:
            self._is_closing = self._is_finished = True
            self._changed.notify()
        what = f"sending to {self._config.to}"
        report(what, 0, 1)
        while self._thread.is_alive() and not stop():
            time.sleep(_POLL_SECONDS)
            report(what, 0, 1)
        report(what, 1, 1)
        self._gone.set()
        if is_staged and self._sent is not None and not self._thread.is_alive():
            self._write(f"Sent to {self._sent}")
            return
        reason = "it was stopped" if self._thread.is_alive() else _describe(self._reason)
        self._write(f"Warning: The result could not be sent to {self._config.to}: {reason}. It is whole in {self._folder}. To try again:")
        self._write(f"  {self._command}")

    @property
    def _command(self) -> str:
        return build_command(self._folder, self._config, is_set=True)

    def _stage(self, place: Path) -> bool:
        """Whether it could be prepared."""
        try:
            staged = create_staged(place)
            folder = write_folder(place, self._config, out=staged, progress=ignore_progress)
        except (WeberError, OSError) as error:
            self._reason = error if isinstance(error, WeberError) else PublishError("It could not be prepared.", got=type(error).__name__)
            return False
        with self._changed:
            if self._waiting is not None:
                shutil.rmtree(self._waiting.path, ignore_errors=True)
            self._waiting, self._reason = folder, None
            self._changed.notify()
        if not self._thread.is_alive() and not self._is_closing:
            self._thread.start()
        return True

    def _work(self) -> None:
        while (folder := self._take()) is not None:
            try:
                self._sent = send(folder, self._config, message=build_message(folder), wait=self._wait)
                self._reason = None
            except WeberError as error:
                self._sent, self._reason = None, error
            shutil.rmtree(folder.path, ignore_errors=True)
            self._is_busy = False

    def _take(self) -> Folder | None:
        with self._changed:
            self._changed.wait_for(lambda: self._waiting is not None or self._is_closing)
            folder, self._waiting = self._waiting, None
            self._is_busy = folder is not None
            return None if self._gone.is_set() else folder

    def _wait(self, seconds: float) -> bool:
        """Wait before another try, unless something newer is there, or nobody waits for it any more."""
        end = time.monotonic() + seconds
        while time.monotonic() < end:
            if self._waiting is not None or self._gone.wait(min(_POLL_SECONDS, max(0.0, end - time.monotonic()))):
                return False
        return True


def _describe(error: WeberError | None) -> str:
    if error is None:
        return "it has not answered"
    told = ", ".join(part for part in (error.what.rstrip("."), error.got) if part)
    return f"{told} ({error.fix})" if error.fix else told
