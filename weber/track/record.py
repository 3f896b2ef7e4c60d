"""What a run says of itself in its own folder, for whoever looks into it: `events.jsonl`, a line for each thing that happens, and
`status.json`, what it is doing right now and which process does it."""

from __future__ import annotations

import json
import os
import socket
import time
from collections.abc import Callable, Mapping
from contextlib import suppress
from pathlib import Path

from weber.config.elsewhere import hide_logins
from weber.track.events import Event
from weber.track.process import read_identity

EVENTS_NAME, STATUS_NAME = "events.jsonl", "status.json"
_SECONDS = 1.0
"""Between two writings of the status."""
_ENDS = {"completed": "finished", "cancelled": "stopped", "failed": "failed"}


class Record:
    """Hears all that a run tells. Nothing is written before `open`: a run that is refused leaves no trace. A disk that refuses is no reason
    to end a run: then less is known of it."""

    def __init__(self) -> None:
        self._folder: Path | None = None
        self._early: list[str] = []
        self._written = 0.0
        self._status: dict[str, object] = {
            "status": "running",
            "pid": os.getpid(),
            "process": read_identity(os.getpid()),
            "host": socket.gethostname(),
            "started": time.time(),
        }

    def open(self, folder: Path) -> None:
        """The run's folder is there, and nobody else's."""
        self._folder = folder
        self._append("".join(self._early))
        self._early = []
        self._write(is_due=True)

    def count(self, count: Callable[[int | str], int]) -> None:
        """Every step counts here."""

    def tell(self, event: Event) -> None:
        """Something has happened."""
        data = event.fields.get("data")
        said = dict(data) if isinstance(data, Mapping) else {}
        if event.type == "training.status":
            self._status["status"] = _ENDS.get(str(said.get("status")), "running")
            self._status["said"] = hide_logins(event.text)
        elif event.type == "error":
            self._status["error"] = hide_logins(event.text)
        elif event.type == "training.checkpoint":
            said = {"checkpoint": event.text}
        if event.is_passing or event.type == "lifecycle.stage":
            self._write(is_due=False)
            return
        line = {"time": event.time, "type": event.type, "level": event.level, "text": event.text, **said}
        self._append(hide_logins(json.dumps(line, default=str)) + "\n")
        self._write(is_due=event.type in ("training.status", "error"))

    def tell_step(self, event: Event, *, done: int, total: int) -> None:
        """A step is done."""
        progress = event.fields["progress"]
        assert isinstance(progress, dict)
        loss = progress["metrics"].get("loss")
        self._status |= {"step": done, "steps": total, "loss": loss, "eta_seconds": progress["eta_seconds"]}
        self.report("training", done, total)

    def report(self, what: str, done: int, total: int) -> None:
        """How far long work is."""
        self._status |= {"what": what, "done": done, "total": total}
        self._write(is_due=False)

    def _append(self, text: str) -> None:
        if self._folder is None:
            self._early.append(text)
            return
        with suppress(OSError), (self._folder / EVENTS_NAME).open("a", encoding="utf-8") as stream:
            stream.write(text)

    def _write(self, *, is_due: bool) -> None:
        now = time.monotonic()
        if self._folder is None or (not is_due and now - self._written < _SECONDS):
            return
        self._written = now
        file = self._folder / STATUS_NAME
        with suppress(OSError):
            unfinished = file.with_name(f".{STATUS_NAME}.tmp")
            unfinished.write_text(json.dumps(self._status | {"time": time.time()}) + "\n", encoding="utf-8")
            unfinished.replace(file)
