"""`weber train` on several devices of one machine: a process for each, and one that watches them.

The first process says and shows what there is to be said. If one ends before its time, the others are lost; what that one has said, or
what ended it, is the one message.
"""

from __future__ import annotations

import signal
import socket
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from types import FrameType

LOST = 75
"""Exit code of a process that has lost another one, and leaves it to that one to say why."""
INTERRUPTED = 130
PARENT = "WEBER_PARENT"
"""Variable that says which process watches this one."""

_COMMAND = (sys.executable, "-c", "from weber.cli import main; main()")
_FORWARDED = [getattr(signal, name) for name in ("SIGINT", "SIGTERM", "SIGHUP") if hasattr(signal, name)]
_PATIENCE_SECONDS = 10.0
"""How long the others have, to end by themselves."""
_LOOK_SECONDS = 0.05
_FAILED = 2


@dataclass(frozen=True)
class Child:
    """A process of the run; `said`: the file with what it says, None: where everybody reads it."""

    rank: int
    process: subprocess.Popen[bytes]
    said: Path | None


def launch(
    arguments: Sequence[str], devices: Sequence[int | None], *, variables: Mapping[str, str], own: int, write: Callable[[str], None]
) -> int:
    """Do what the words of a command line say in a process for each device; returns the exit code. `own`: the number of this process."""
    meeting = {"MASTER_ADDR": "127.0.0.1", "MASTER_PORT": str(find_port()), PARENT: str(own)}
    with tempfile.TemporaryDirectory(prefix="weber-") as folder:
        children = list[Child]()
        try:
            for rank, device in enumerate(devices):
                places = {"RANK": rank, "WORLD_SIZE": len(devices), "LOCAL_RANK": rank, "LOCAL_WORLD_SIZE": len(devices)}
                shown = {} if device is None else {"CUDA_VISIBLE_DEVICES": _name_device(device, variables)}
                own_variables = {**variables, **meeting, **{name: str(number) for name, number in places.items()}, **shown}
                children.append(_start(arguments, rank, variables=own_variables, said=Path(folder) / f"{rank}.txt" if rank else None))
            with _forwarding(children[0]) as sent:
                ended = _watch(children)
            return INTERRUPTED if -children[0].process.returncode in sent else _tell(children, ended, write=write)
        finally:
            _end(children)


def find_port() -> int:
    """A port on which nobody listens."""
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])


def _name_device(number: int, variables: Mapping[str, str]) -> str:
    """A GPU by the name under which the system shows it; some may be hidden from this process already."""
    shown = [name for name in variables.get("CUDA_VISIBLE_DEVICES", "").split(",") if name]
    return shown[number] if number < len(shown) else str(number)


def _start(arguments: Sequence[str], rank: int, *, variables: Mapping[str, str], said: Path | None) -> Child:
    command = [*_COMMAND, *arguments]
    if said is None:
        return Child(rank, subprocess.Popen(command, env=variables, start_new_session=True), None)
    with said.open("wb") as file:
        process = subprocess.Popen(
            command, env=variables, start_new_session=True, stdin=subprocess.DEVNULL, stdout=file, stderr=subprocess.STDOUT
        )
    return Child(rank, process, said)


@contextmanager
def _forwarding(first: Child) -> Iterator[list[int]]:
    """What is sent to this process goes to the first one, which knows how to end a run; it is listed."""
    sent = list[int]()

    def forward(number: int, frame: FrameType | None) -> None:
        sent.append(number)
        if first.process.poll() is None:
            first.process.send_signal(number)

    previous = {number: signal.signal(number, forward) for number in _FORWARDED if signal.getsignal(number) is not signal.SIG_IGN}
    try:
        yield sent
    finally:
        for number, handler in previous.items():
            signal.signal(number, handler)


def _watch(children: Sequence[Child]) -> list[Child]:
    """Until all have ended; returns them in the order in which they did. When one is gone, the others go too."""
    ended: list[Child] = []
    deadline: float | None = None
    while len(ended) < len(children):
        for child in children:
            if child not in ended and child.process.poll() is not None:
                ended.append(child)
        if ended and deadline is None:
            deadline = time.monotonic() + _PATIENCE_SECONDS
        if deadline is not None and time.monotonic() > deadline:
            _end(children)
        time.sleep(_LOOK_SECONDS)
    return ended


def _tell(children: Sequence[Child], ended: Sequence[Child], *, write: Callable[[str], None]) -> int:
    """The exit code of the run, and why it has ended, where the first process has not said it itself."""
    first = children[0].process.returncode
    if first is not None and first >= 0 and first != LOST:
        return int(first)
    guilty = next((child for child in ended if child.process.returncode not in (0, LOST)), None)
    if guilty is None:
        write("error: A process of the run has lost the others; the checkpoints are whole.\n  fix: go on with --resume")
        return _FAILED
    code = guilty.process.returncode
    said = "" if guilty.said is None else guilty.said.read_text(encoding="utf-8", errors="replace").strip()
    if code < 0:
        name = signal.Signals(-code).name
        said = (
            f"error: Process {guilty.rank} of the run was killed by the system or by somebody; the checkpoints of the run are whole."
            f"\n  got: signal {name}\n  fix: see whether memory has run out; then go on with --resume"
        )
    write(said or f"error: Process {guilty.rank} of the run has ended with code {code}; the checkpoints of the run are whole.")
    return _FAILED


def _end(children: Sequence[Child]) -> None:
    for child in children:
        if child.process.poll() is None:
            child.process.kill()
    for child in children:
        child.process.wait()
