"""`weber` as a process of its own, forked from one that has imported the libraries already: that takes longer than a small run."""

from __future__ import annotations

import multiprocessing
import os
import signal
import subprocess
import sys
from collections.abc import Callable, Sequence
from pathlib import Path

import torch

from weber import cli

CONTEXT = multiprocessing.get_context("forkserver")
CONTEXT.set_forkserver_preload(["tests.imported"])


class Weber:
    """A process with the methods of `subprocess.Popen` that tests need. It calls `first`, and writes what it says to `output`."""

    def __init__(self, arguments: Sequence[str], *, output: Path, first: Callable[[], None] | None = None) -> None:
        self._process = CONTEXT.Process(target=_run, args=(list(arguments), output, torch.get_num_threads(), first), daemon=True)
        self._process.start()

    @property
    def returncode(self) -> int | None:
        return self._process.exitcode

    def poll(self) -> int | None:
        return self._process.exitcode

    def wait(self, timeout: float | None = None) -> int:
        self._process.join(timeout)
        if self._process.exitcode is None:
            raise subprocess.TimeoutExpired("weber", timeout or 0.0)
        return self._process.exitcode

    def kill(self) -> None:
        self._process.kill()

    def interrupt(self) -> None:
        """Ctrl-C."""
        assert self._process.pid is not None
        os.kill(self._process.pid, signal.SIGINT)


def _run(arguments: list[str], output: Path, num_threads: int, first: Callable[[], None] | None) -> None:
    with output.open("wb") as file:
        for number in (1, 2):
            os.dup2(file.fileno(), number)
    torch.set_num_threads(num_threads)
    if first is not None:
        first()
    sys.argv = ["weber", *arguments]
    cli.main()
