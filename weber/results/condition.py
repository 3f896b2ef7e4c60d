"""What has become of a run, as its folder, its lock and the processes of this machine tell it now, whoever started it."""

from __future__ import annotations

import json
import math
import socket
import time
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from weber.checkpoint.lock import LOCK_NAME
from weber.track.jsonl import METRICS_NAME
from weber.track.process import is_alive, is_locked
from weber.track.record import STATUS_NAME

_MOST = 2**53
_QUIET_SECONDS = 600.0
"""Without a sign for so long a run on another machine counts as gone, and one on this machine as silent."""


@dataclass(frozen=True)
class Condition:
    """`status`: running, silent (it is there, and has not said anything for long), finished, stopped (somebody wanted it), failed, killed
    (its process is gone and has not said why), unknown (on another machine, long ago), or idle (nothing is known to have happened).

    `what`, `done`, `total`: what it does; `error`: what ended it."""

    status: str
    what: str = ""
    done: int = 0
    total: int = 0
    step: int = 0
    steps: int = 0
    loss: float | None = None
    eta_seconds: float | None = None
    error: str = ""
    pid: int | None = None
    is_here: bool = True
    started: float = 0.0
    time: float = 0.0
    known: Mapping[str, Any] = field(default_factory=dict, repr=False)

    @property
    def is_running(self) -> bool:
        """Whether a process is at it."""
        return self.status in ("running", "silent")


def read_condition(folder: Path) -> Condition:
    """The condition of the run in a folder."""
    known = _read_status(folder)
    if not known:
        is_held = is_locked(folder / LOCK_NAME)
        last = _read_time(folder / METRICS_NAME)
        status = "running" if is_held else "idle" if last == 0.0 else "stopped"
        return Condition(status, time=last)
    is_here = known.get("host") == socket.gethostname()
    status = _judge(folder, known, is_here=is_here)
    return Condition(
        status,
        what=str(known.get("what") or ""),
        done=int(_read_number(known, "done")),
        total=int(_read_number(known, "total")),
        step=int(_read_number(known, "step")),
        steps=int(_read_number(known, "steps")),
        loss=_read_number(known, "loss") if "loss" in known else None,
        eta_seconds=_read_number(known, "eta_seconds") or None,
        error=str(known.get("error") or "") if status == "failed" else "",
        pid=int(_read_number(known, "pid")) or None,
        is_here=is_here,
        started=_read_number(known, "started"),
        time=_read_number(known, "time"),
        known=known,
    )


def _judge(folder: Path, known: Mapping[str, Any], *, is_here: bool) -> str:
    said, quiet = str(known.get("status")), time.time() - _read_number(known, "time")
    if said != "running":
        return "running" if is_here and is_locked(folder / LOCK_NAME) and not _is_ending(known) else said
    if not is_here:
        return "running" if quiet < _QUIET_SECONDS else "unknown"
    pid, identity = known.get("pid"), known.get("process")
    if isinstance(pid, int) and isinstance(identity, str) and is_alive(pid, identity):
        return "running" if quiet < _QUIET_SECONDS else "silent"
    return "running" if is_locked(folder / LOCK_NAME) else "killed"


def _is_ending(known: Mapping[str, Any]) -> bool:
    """Whether the process that has said how it ended is only about to leave."""
    pid, identity = known.get("pid"), known.get("process")
    return isinstance(pid, int) and isinstance(identity, str) and is_alive(pid, identity)


def _read_number(known: Mapping[str, Any], name: str) -> float:
    """A number of the file; 0 where it has none, or none that a number of steps or a time can be."""
    value = known.get(name)
    return float(value) if isinstance(value, int | float) and math.isfinite(value) and abs(value) < _MOST else 0.0


def _read_status(folder: Path) -> Mapping[str, Any]:
    try:
        found = json.loads((folder / STATUS_NAME).read_text(encoding="utf-8"))
    except (OSError, ValueError):
        return {}
    return found if isinstance(found, dict) else {}


def _read_time(file: Path) -> float:
    """When it was written last; 0 where it is not there."""
    try:
        return file.stat().st_mtime
    except OSError:
        return 0.0
