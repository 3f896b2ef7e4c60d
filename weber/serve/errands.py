"""Calls of `weber` that take a while and are nobody's run: pages read what they have written, and never wait for them."""

from __future__ import annotations

import contextlib
import os
import subprocess
import sys
import threading
import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from hashlib import blake2b
from pathlib import Path
from typing import Literal

from weber.serve.site import Site

_WEBER = (sys.executable, "-P", "-c", "from weber.cli import main; main()")
"""What starts weber as the pages are: the same package, whatever is on the PATH."""

State = Literal["absent", "running", "ready", "failed"]
_FOLDER, _MOST_FILES, _OLD_SECONDS, _NICENESS, _SHOWN_LINES = "errands", 240, 24 * 3600.0, 10, 40


@dataclass(frozen=True)
class Errand:
    """A call by the place of its files, without an ending: `.out` is what it said, `.found` what it wrote."""

    base: Path

    @property
    def out(self) -> Path:
        """What it said, when it has ended well."""
        return self.base.with_suffix(".out")

    @property
    def found(self) -> Path:
        """What it wrote into a file."""
        return self.base.with_suffix(".found")

    @property
    def failed(self) -> Path:
        """There where it ended otherwise."""
        return self.base.with_suffix(".failed")

    @property
    def log(self) -> Path:
        """Progress, and errors."""
        return self.base.with_suffix(".log")

    def read_state(self) -> tuple[State, str, float]:
        """What has become of it; where it is, or why it failed; and when that was, in seconds since 1970."""
        if _running.has(self.base):
            return "running", _read_last_line(self.log) or "it begins", time.time()
        if self.failed.is_file() and (not self.out.is_file() or self.failed.stat().st_mtime > self.out.stat().st_mtime):
            return "failed", _read_error(self.log), self.failed.stat().st_mtime
        return ("ready", "", self.out.stat().st_mtime) if self.out.is_file() else ("absent", "", 0.0)


class _Running:
    """Those that are under way."""

    def __init__(self) -> None:
        self._children: dict[Path, subprocess.Popen[bytes]] = {}
        self._lock = threading.Lock()

    def has(self, base: Path) -> bool:
        """Whether one is."""
        with self._lock:
            return base in self._children

    def start(self, errand: Errand, command: Sequence[str], *, folder: Path, environment: Mapping[str, str], good: Sequence[int]) -> None:
        """Start one, unless it is under way."""
        unfinished = errand.base.with_suffix(".unfinished")
        with self._lock:
            if errand.base in self._children:
                return
            with unfinished.open("wb") as out, errand.log.open("wb") as log:
                child = subprocess.Popen(
                    command, cwd=folder, env=dict(environment) or None, stdin=subprocess.DEVNULL, stdout=out, stderr=log
                )
            self._children[errand.base] = child
        with contextlib.suppress(OSError, AttributeError):  # it may be over; Windows has no such thing
            os.setpriority(os.PRIO_PROCESS, child.pid, _NICENESS)
        threading.Thread(target=self._finish, args=(errand, child, unfinished, good), daemon=True).start()

    def _finish(self, errand: Errand, child: subprocess.Popen[bytes], unfinished: Path, good: Sequence[int]) -> None:
        is_good = child.wait() in good
        unfinished.replace(errand.out if is_good else errand.failed)
        if is_good:
            errand.failed.unlink(missing_ok=True)
        with self._lock:
            del self._children[errand.base]


_running = _Running()


def find_errand(site: Site, *words: str | bytes) -> Errand:
    """The errand that is known by these words."""
    parts = [one.encode(errors="surrogatepass") if isinstance(one, str) else one for one in words]
    return Errand(site.home / _FOLDER / blake2b(b"\0".join(parts), digest_size=16).hexdigest())


def start_errand(site: Site, errand: Errand, *, words: Sequence[str], folder: Path, good: Sequence[int] = (0,)) -> None:
    """Call `weber` with these words in a folder, unless that is being done; `good` are the exit codes of a call that ended well."""
    errand.base.parent.mkdir(parents=True, exist_ok=True)
    _clear_old(errand.base.parent)
    _running.start(errand, [*_WEBER, *words], folder=folder, environment=site.environment, good=good)


def _read_last_line(path: Path) -> str:
    lines = path.read_text(encoding="utf-8", errors="replace").strip().splitlines() if path.is_file() else []
    return lines[-1] if lines else ""


def _read_error(path: Path) -> str:
    """What the command said in the end."""
    lines = path.read_text(encoding="utf-8", errors="replace").splitlines() if path.is_file() else []
    start = next((number for number, line in enumerate(lines) if line.startswith("error: ")), max(0, len(lines) - _SHOWN_LINES))
    return "\n".join(lines[start:]).removeprefix("error: ") or "It ended without a word."


def _clear_old(folder: Path) -> None:
    """Only the latest are kept."""
    files = sorted(((one.stat().st_mtime, one) for one in folder.iterdir()), reverse=True)
    for changed, file in files[_MOST_FILES:]:
        if changed < time.time() - _OLD_SECONDS:
            file.unlink(missing_ok=True)
