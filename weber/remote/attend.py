"""A run that is on another machine: what it says, what it makes, how it ends. One reads what it says, and one fetches beside it."""

from __future__ import annotations

import re
import threading
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager, suppress
from typing import TypeVar

from weber.errors import RemoteError
from weber.planning.sizes import describe_size
from weber.remote.link import Link
from weber.remote.rented import Rented, fetch
from weber.track.progress import Watcher

FETCH_SECONDS = 20.0
_WAITS = (1.0, 4.0, 15.0, 30.0, 60.0, 60.0, 120.0, 120.0, 180.0)
"""Seconds between tries to reach a machine again."""
_SHOWN_BYTES = 4000
_STOP_SECONDS = 0.5
_INTERRUPTED = 130
_PROGRESS = re.compile(r"(.+): (\d+)/(\d+)(?: (.*))?")
_FULL_BYTES = 2**20
"""Less than that, and not even what a run says can be kept."""
_ERROR = "error: "
_LABELS = {"  got: ": "got", "  expected: ": "expected", "  fix: ": "fix"}
_STATES = {"running": "at work", "gone": "gone without a word", "ended": "over", "prepared": "not begun"}
Found = TypeVar("Found")


def attach(
    rented: Rented, *, watcher: Watcher, is_new: bool = False, every: float = FETCH_SECONDS, waits: Sequence[float] = _WAITS
) -> bool:
    """Show what a run says and fetch what it makes, until it has ended, across lost connections; whether it is finished, not stopped.

    Raises RemoteError with the sentence that it failed with, or when the machine cannot be reached for long.
    """
    link = rented.open()
    told = _reach(lambda: link.ask("tell", rented.root), rented, watcher=watcher, waits=waits)
    offset = 0 if is_new else max(0, _count(told, "log_bytes") - _SHOWN_BYTES)
    with _fetching(rented, every=every):
        while True:
            offset = _watch(rented, link, offset, watcher=watcher)
            told = _reach(lambda: link.ask("tell", rented.root), rented, watcher=watcher, waits=waits)
            if told["state"] != "running":
                break
        if offset < _count(told, "log_bytes"):  # it ended while the connection was lost
            _watch(rented, link, offset, watcher=watcher)
    _reach(lambda: fetch(rented, link, told=told), rented, watcher=watcher, waits=waits)
    return _judge(rented, told)


def stop(rented: Rented, *, watcher: Watcher) -> None:
    """Ask a run to save and stop, wait until it has, and fetch what it has made."""
    link = rented.open()
    if link.ask("stop", rented.root)["state"] == "running":
        watcher.write("The run was asked to save and stop.")
        while (told := link.ask("tell", rented.root))["state"] == "running":
            time.sleep(_STOP_SECONDS)
    else:
        told = link.ask("tell", rented.root)
        watcher.write("The run was not at work.")
    fetch(rented, link, told=told)


def take(rented: Rented) -> str:
    """Fetch what a run has made so far; in words, how it is."""
    link = rented.open()
    told = link.ask("tell", rented.root)
    came = fetch(rented, link, told=told)
    return f"The run is {_STATES.get(str(told['state']), 'not there any more')}; new here: {', '.join(came) or 'no checkpoint'}."


def look_down(rented: Rented) -> str:
    """What would be deleted there, in words. Raises RemoteError for a run at work."""
    told = rented.open().ask("tell", rented.root)
    if told["state"] == "running":
        raise RemoteError("The run is at work.", got=f"{rented.host.words}, {rented.root}", fix=f"first: weber remote stop {rented.folder}")
    return f"{rented.root} on {rented.host.words}, {describe_size(_count(told, 'num_bytes'))}"


def take_down(rented: Rented) -> list[str]:
    """Fetch what is not here yet, then delete the run there; the folders that are gone."""
    link = rented.open()
    told = link.ask("tell", rented.root)
    if told["state"] not in ("none", "prepared"):
        fetch(rented, link, told=told)
    gone = link.ask("delete", rented.root)
    forget(rented)
    folders = gone["gone"]
    return [str(one) for one in folders] if isinstance(folders, list) else []


def forget(rented: Rented) -> None:
    """The run here is on no machine any more."""
    for file in rented.folder.glob(".remote*"):
        file.unlink()


def _watch(rented: Rented, link: Link, offset: int, *, watcher: Watcher) -> int:
    """Show what a run says until it ends or the connection does; the byte of its log where the next one goes on."""
    with link.watching(rented.root, offset) as process:
        assert process.stdout is not None
        for line in process.stdout:
            if not line.endswith(b"\n"):
                break
            offset += len(line)
            _show(line.decode(errors="replace").rstrip().replace(rented.out, str(rented.folder)), watcher)
    return offset


def _show(line: str, watcher: Watcher) -> None:
    found = _PROGRESS.fullmatch(line)
    if found is None:
        watcher.write(line)
    else:
        watcher.report(found[1], int(found[2]), int(found[3]), found[4] or "")


@contextmanager
def _fetching(rented: Rented, *, every: float) -> Iterator[None]:
    """Bring results here from time to time, beside what else is done. A try that fails is made again, and the last one tells."""
    is_over = threading.Event()

    def work() -> None:
        link = rented.open()
        while not is_over.wait(every):
            with suppress(RemoteError):
                fetch(rented, link, told=link.ask("tell", rented.root))

    thread = threading.Thread(target=work, daemon=True, name="weber-fetch")
    thread.start()
    try:
        yield
    finally:
        is_over.set()
        thread.join()


def _reach(call: Callable[[], Found], rented: Rented, *, watcher: Watcher, waits: Sequence[float]) -> Found:
    """What a call answers, tried again while the connection is lost."""
    for number, seconds in enumerate((*waits, None)):
        try:
            return call()
        except RemoteError as error:
            if not error.is_passing:
                raise
            if seconds is None:
                again = f"weber remote attach {rented.folder}"
                raise RemoteError(error.what, got=error.got, fix=f"the run there goes on if the machine does; later: {again}") from error
            if number == 0:
                watcher.write(f"The connection to {rented.host.words} is lost; the run there goes on. Trying again.")
            time.sleep(seconds)
    raise AssertionError


def _judge(rented: Rented, told: Mapping[str, object]) -> bool:
    """Whether a run that has ended is finished. Raises RemoteError with what it failed with."""
    state, code = told["state"], told.get("code")
    if state == "ended" and code in (0, _INTERRUPTED):
        return code == 0
    again = f"`weber {'remote' if rented.cluster is None else 'cloud'} train` with --resume goes on from its last checkpoint"
    if state in ("ended", "gone") and _count(told, "free_bytes") < _FULL_BYTES:
        fix = f"free space there, or fetch and take it elsewhere (weber remote down {rented.folder}); then {again}"
        free = describe_size(_count(told, "free_bytes"))
        raise RemoteError("The disk there is full, and the run has failed.", got=f"{rented.host.words}: {free} free", fix=fix)
    if state != "ended" or (isinstance(code, int) and code < 0):
        said = {"gone": "its process is gone and has not said why", "none": "its folder is gone", "prepared": "it has not begun"}
        got = said.get(str(state), f"its process was killed by signal {code}; where it took all memory, the system does that")
        raise RemoteError("The run there is no more.", got=f"{rented.host.words}: {got}", fix=again)
    what, parts = _read_error(str(told["said"]))
    raise RemoteError(f"The run has failed there: {what}", **parts)


def _read_error(said: str) -> tuple[str, dict[str, str]]:
    """The sentence that a run has ended with and what completes it; else its last line."""
    lines = said.splitlines()
    place = next((at for at in range(len(lines) - 1, -1, -1) if lines[at].startswith(_ERROR)), None)
    if place is None:
        return next((line.strip() for line in reversed(lines) if line.strip()), "nothing was said"), {}
    found: dict[str, str] = {}
    for line in lines[place + 1 :]:
        label = next((one for one in _LABELS if line.startswith(one)), None)
        if label is None:
            break
        found[_LABELS[label]] = line.removeprefix(label)
    return lines[place].removeprefix(_ERROR), found


def _count(told: Mapping[str, object], name: str) -> int:
    found = told.get(name)
    return found if isinstance(found, int) else 0
