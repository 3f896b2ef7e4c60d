"""Starts what waits, one job for each GPU, notices what has ended, and asks what runs to stop: processes that outlive the server."""

from __future__ import annotations

import json
import os
import re
import signal
import subprocess
import sys
import time
from collections.abc import Mapping
from contextlib import suppress
from pathlib import Path

from weber.errors import ConfigError
from weber.results.condition import read_condition
from weber.serve.found import Finder
from weber.serve.queue import Job, Queue
from weber.serve.site import VISIBLE, Site
from weber.track.process import is_alive, read_identity

_MOST_LIGHT = 2
"""So many jobs at once that need no GPU."""
_MOST_WAITS, _WAIT_SECONDS = 50, 0.1
_INTERRUPTED = 130
_LOG_BYTES = 64 * 1024
_PROGRESS = re.compile(r"(.+): (\d+)/(\d+)(?: .*)?")
_BAR = re.compile(r".*\d+%\|.*\| *([\d.]+)([kMGT])B?/([\d.]+)([kMGT])B? *\[")
_ERROR = "error: "


class Workers:
    """The jobs of a queue as processes, each in a session of its own."""

    def __init__(self, site: Site, *, queue: Queue, finder: Finder) -> None:
        self._site, self._queue, self._finder = site, queue, finder
        self._children: dict[int, subprocess.Popen[bytes]] = {}

    def look(self) -> None:
        """Notice what has ended, and start what can be: called again and again, by one thread."""
        for job in self._queue.list_open():
            if job.state == "running" and job.pid is None:
                self._end(job, None)  # a server was killed while it started this one
            elif job.state == "running":
                self._look_after(job)
        if not self._queue.is_paused:
            for job in self._choose():
                self._start(job)

    def why_waiting(self) -> str:
        """In words, why nothing that waits is started; empty where it will be."""
        if self._queue.is_paused:
            return "the queue is paused"
        busy = [job for job in self._queue.list_open() if job.state == "running" and job.is_heavy]
        others = self._list_others()
        if len(busy) + len(others) < len(self._list_slots()):
            return ""
        if others and not busy:
            return f"{others[0].name} is training, which was started elsewhere"
        return f"{busy[0].title} is running" if len(busy) == 1 else "each GPU has a run"

    def stop(self, job: Job, *, at_once: bool = False) -> None:
        """Ask a job to stop: training saves first. `at_once`: kill it, if that was asked of it before."""
        if self._queue.take(job.id, state="cancelled"):
            return
        job = self._queue.read(job.id)
        if job.state != "running" or job.pid is None or job.process is None or not is_alive(job.pid, job.process):
            return  # numbers of processes are given anew: nobody else is to be stopped
        self._queue.note(job.id, asked=time.time())
        is_killed = at_once and job.asked is not None
        with suppress(ProcessLookupError, PermissionError):
            os.killpg(job.pid, signal.SIGKILL if is_killed else signal.SIGTERM)
        if is_killed and job.run and job.kind == "train":
            with suppress(ProcessLookupError, PermissionError, ConfigError):  # one of several processes has a session of its own
                os.kill(find_process(Path(job.run)), signal.SIGKILL)

    def is_at(self, job: Job) -> bool:
        """Whether the run of a job is being trained by now, and not only looked at."""
        found = read_condition(Path(job.run))
        return found.is_running and found.started >= (job.started or 0.0) - 1.0

    def settle(self, run: Path) -> None:
        """Wait a moment for the process of a run that has said that it ended, and is about to leave."""
        for _ in range(_MOST_WAITS):
            jobs = [job for job in self._queue.list_of_run(run) if job.state == "running" and job.kind == "train"]
            if not jobs or read_condition(run).is_running:
                return
            self._look_after(jobs[0])
            time.sleep(_WAIT_SECONDS)

    def read_log(self, job: Job) -> str:
        """The end of what a job has said."""
        return read_end(self._queue.logs / f"{job.id}.log")

    def _look_after(self, job: Job) -> None:
        child = self._children.get(job.id)
        if child is not None and child.poll() is not None:
            self._children.pop(job.id, None)
        ended = self._read_end(job)
        if ended is None:
            if job.pid is not None and job.process is not None and not is_alive(job.pid, job.process):
                ended = self._read_end(job)  # it may have been written since
                self._end(job, ended)
            return
        self._end(job, ended)

    def _end(self, job: Job, ended: Mapping[str, int] | None) -> None:
        code = None if ended is None else ended["code"]
        if code == 0:
            state = "finished"
        elif job.asked is not None and (code is None or code < 0 or code == _INTERRUPTED):
            state = "stopped"
        else:
            state = "killed" if code is None or code < 0 else "stopped" if code == _INTERRUPTED else "failed"
        self._queue.note(job.id, state=state, code=code, ended=time.time())

    def _read_end(self, job: Job) -> Mapping[str, int] | None:
        try:
            found: Mapping[str, int] = json.loads((self._queue.logs / f"{job.id}.json").read_text(encoding="utf-8"))
            return found
        except (OSError, ValueError):
            return None

    def _list_slots(self) -> tuple[str, ...]:
        return self._site.slots or ("",)

    def _list_others(self) -> list[Path]:
        """Runs that are being trained, and that no job of the queue trains."""
        known = {job.run for job in self._queue.list_open() if job.state == "running"}
        folders = [folder for folder in self._finder.list() if str(folder) not in known]
        return [folder for folder in folders if (found := read_condition(folder)).is_running and found.is_here]

    def _choose(self) -> list[Job]:
        """What can be started now."""
        running = [job for job in self._queue.list_open() if job.state == "running"]
        waiting = [job for job in self._queue.list_open() if job.state == "waiting"]
        light = [job for job in waiting if not job.is_heavy][: max(0, _MOST_LIGHT - sum(not job.is_heavy for job in running))]
        heavy = [job for job in waiting if job.is_heavy]
        taken = [job for job in running if job.is_heavy]
        num_free = len(self._list_slots()) - len(taken)
        if heavy and num_free > 0:
            num_free -= len(self._list_others())
        return light + heavy[: max(0, num_free)]

    def _start(self, job: Job) -> None:
        taken = {one.slot for one in self._queue.list_open() if one.state == "running" and one.is_heavy}
        slot = next((one for one in self._list_slots() if one not in taken), "") if job.is_heavy else ""
        if not self._queue.take(job.id, state="running"):
            return  # it was taken out meanwhile
        chosen = {VISIBLE: slot} if len(self._site.slots) > 1 and job.is_heavy else {}
        (self._queue.logs / f"{job.id}.json").unlink(missing_ok=True)
        command = [sys.executable, "-P", "-m", "weber.serve.child", str(self._queue.logs / f"{job.id}.json"), *job.words]
        with (self._queue.logs / f"{job.id}.log").open("wb") as log:
            try:
                child = subprocess.Popen(
                    command,
                    cwd=job.folder,
                    stdin=subprocess.DEVNULL,
                    stdout=log,
                    stderr=subprocess.STDOUT,
                    start_new_session=True,
                    env={**self._site.environment, **chosen} or None,
                )
            except OSError as error:
                log.write(f"{_ERROR}It could not be started: {error.strerror or error}\n".encode())
                self._queue.note(job.id, state="failed", ended=time.time())
                return
        self._children[job.id] = child
        process = read_identity(child.pid) or "gone"
        self._queue.note(job.id, started=time.time(), pid=child.pid, process=process, slot=slot)


def stop_process(folder: Path) -> None:
    """Ask a run that was started elsewhere to save and stop. Raises ConfigError where no process of this machine is known to train it."""
    try:
        os.kill(find_process(folder), signal.SIGTERM)
    except (ProcessLookupError, PermissionError) as error:
        raise ConfigError("The run's process cannot be asked to stop.", got=str(error), fix="stop it where it was started") from error


def find_process(folder: Path) -> int:
    """The number of the process of this machine that trains a run. Raises ConfigError where none is known."""
    found = read_condition(folder)
    identity = found.known.get("process")
    if found.pid is None or not found.is_here or not isinstance(identity, str) or not is_alive(found.pid, identity):
        raise ConfigError("No process of this machine is known to train this run.", got=str(folder), fix="stop it where it was started")
    return found.pid


def read_end(file: Path, *, num_bytes: int = _LOG_BYTES) -> str:
    """The last lines of a text file."""
    try:
        with file.open("rb") as stream:
            size = stream.seek(0, os.SEEK_END)
            stream.seek(max(0, size - num_bytes))
            data = stream.read()
    except OSError:
        return ""
    text = data.decode("utf-8", errors="replace")
    return text.partition("\n")[2] if size > num_bytes else text


def read_progress(log: str) -> tuple[str, int, int] | None:
    """What a job said last of how far it is."""
    for line in reversed(log.splitlines()[-40:]):
        found = _PROGRESS.fullmatch(line.strip())
        if found:
            return found[1], int(found[2]), int(found[3])
    return None


def read_fetched(log: str) -> str:
    """How much of a file is fetched, where the bar of the library that fetches it is what a job shows last; else nothing."""
    lines = [line.strip() for line in re.split(r"[\r\n]+", log) if line.strip()]
    found = _BAR.match(lines[-1]) if lines else None
    return f"fetching {found[1]} {found[2]}B of {found[3]} {found[4]}B" if found else ""


def read_error(log: str) -> str:
    """The sentence that a job ended with, and what completes it; else its last line."""
    lines = log.splitlines()
    place = next((at for at in range(len(lines) - 1, -1, -1) if lines[at].startswith(_ERROR)), None)
    if place is None:
        return next((line.strip() for line in reversed(lines) if line.strip()), "")
    rest = []
    for line in lines[place + 1 :]:
        if not line.startswith("  "):
            break
        rest.append(line)
    return "\n".join([lines[place].removeprefix(_ERROR), *rest])
