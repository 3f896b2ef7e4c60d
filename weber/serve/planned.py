"""Plans that a `weber` of its own has made: pages read what it has written, and never wait for it."""

from __future__ import annotations

import contextlib
import json
import os
import subprocess
import sys
import threading
import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import lru_cache
from hashlib import blake2b
from pathlib import Path
from typing import Any, Literal

from weber.serve.files import find_root
from weber.serve.site import Site

WEBER = (sys.executable, "-P", "-c", "from weber.cli import main; main()")
"""What starts weber as the pages are: the same package, whatever is on the PATH."""

_FOLDER, _MOST_KEPT, _NICENESS = "plans", 60, 10
_SHOWN_LINES = 40


@dataclass(frozen=True)
class Planned:
    """What is known of a plan. `message`: where it is, or why there is none; `pictures`: the file with what becomes of each;
    `moment`: when it was made, in seconds since 1970."""

    state: Literal["absent", "running", "ready", "failed"]
    message: str = ""
    facts: Mapping[str, Any] | None = None
    pictures: Path | None = None
    moment: float = 0.0


class _Children:
    """The plans that are being made."""

    def __init__(self) -> None:
        self._running: dict[Path, subprocess.Popen[bytes]] = {}
        self._lock = threading.Lock()

    def is_running(self, base: Path) -> bool:
        """Whether the plan that is kept there is being made."""
        with self._lock:
            return base in self._running

    def start(self, base: Path, command: Sequence[str], *, folder: Path, environment: Mapping[str, str]) -> None:
        """Make it, unless that is being done."""
        with self._lock:
            if base in self._running:
                return
            with _name(base, "unfinished").open("wb") as out, _name(base, "log").open("wb") as log:
                child = subprocess.Popen(
                    command, cwd=folder, env=dict(environment) or None, stdin=subprocess.DEVNULL, stdout=out, stderr=log
                )
            self._running[base] = child
        with contextlib.suppress(OSError, AttributeError):  # it may be over; Windows has no such thing
            os.setpriority(os.PRIO_PROCESS, child.pid, _NICENESS)
        threading.Thread(target=self._finish, args=(base, child), daemon=True).start()

    def _finish(self, base: Path, child: subprocess.Popen[bytes]) -> None:
        code = child.wait()
        _name(base, "unfinished").replace(_name(base, "json" if code == 0 else "failed"))
        if code == 0:
            _name(base, "failed").unlink(missing_ok=True)
        with self._lock:
            del self._running[base]


_children = _Children()


def find_planned(site: Site, path: Path, *, card: str = "") -> Planned:
    """What is known of the plan of a file of settings as it is now, for this machine or for one with that card."""
    base = _find_base(site, path, card)
    if _children.is_running(base):
        return Planned("running", _read_last_line(_name(base, "log")) or "reading the settings")
    done, failed = _name(base, "json"), _name(base, "failed")
    if failed.is_file() and (not done.is_file() or failed.stat().st_mtime > done.stat().st_mtime):
        return Planned("failed", _read_error(_name(base, "log")), moment=failed.stat().st_mtime)
    if not done.is_file():
        return Planned("absent")
    changed = done.stat()
    pictures = _name(base, "jsonl")
    facts = _load_facts(done, changed.st_mtime_ns)
    return Planned("ready", "", facts, pictures if pictures.is_file() else None, changed.st_mtime)


def start_planning(site: Site, path: Path, *, card: str = "") -> None:
    """Make the plan, in a process of its own; of this machine with what becomes of each picture."""
    base = _find_base(site, path, card)
    base.parent.mkdir(parents=True, exist_ok=True)
    _clear_old(base.parent)
    words = ["--card", card] if card else ["--pictures", str(_name(base, "jsonl"))]
    _children.start(base, [*WEBER, "plan", str(path), "--json", *words], folder=find_root(site, path), environment=site.environment)


def _find_base(site: Site, path: Path, card: str) -> Path:
    """Where the plan of these very settings is kept, without an ending."""
    text = path.read_bytes() if path.is_file() else b""
    name = blake2b(b"\0".join((str(path).encode(errors="surrogatepass"), card.encode(), text)), digest_size=16).hexdigest()
    return site.home / _FOLDER / name


def _name(base: Path, ending: str) -> Path:
    return base.with_name(f"{base.name}.{ending}")


@lru_cache(maxsize=8)
def _load_facts(path: Path, changed_ns: int) -> Mapping[str, Any]:
    facts: Mapping[str, Any] = json.loads(path.read_text(encoding="utf-8"))
    return facts


def _read_last_line(path: Path) -> str:
    lines = path.read_text(encoding="utf-8", errors="replace").strip().splitlines() if path.is_file() else []
    return lines[-1] if lines else ""


def _read_error(path: Path) -> str:
    """What the command said in the end."""
    lines = path.read_text(encoding="utf-8", errors="replace").splitlines() if path.is_file() else []
    start = next((number for number, line in enumerate(lines) if line.startswith("error: ")), max(0, len(lines) - _SHOWN_LINES))
    return "\n".join(lines[start:]).removeprefix("error: ") or "It ended without a word."


def _clear_old(folder: Path) -> None:
    """Only the latest plans are kept."""
    files = sorted(folder.iterdir(), key=lambda one: one.stat().st_mtime, reverse=True)
    day_ago = time.time() - 24 * 3600
    for file in files[4 * _MOST_KEPT :]:
        if file.stat().st_mtime < day_ago:
            file.unlink(missing_ok=True)
