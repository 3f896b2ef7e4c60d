"""One process at a time in a run folder."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from filelock import FileLock, Timeout

from weber.errors import CheckpointError

LOCK_NAME = "run.lock"


@contextmanager
def lock_folder(run_folder: Path) -> Iterator[None]:
    """Hold the run folder while the context lasts; the system lets go of it when the process ends, however it ends.

    Raises CheckpointError where another process holds it.
    """
    run_folder.mkdir(parents=True, exist_ok=True)
    lock = FileLock(run_folder / LOCK_NAME)
    try:
        lock.acquire(timeout=0)
    except Timeout as error:
        raise CheckpointError(
            "Another process is training into this run folder.",
            got=f"output.folder = {run_folder}",
            fix="wait for it or stop it, or set output.folder to another folder",
        ) from error
    try:
        yield
    finally:
        lock.release()
