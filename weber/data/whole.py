"""Files that appear whole or not at all."""

from __future__ import annotations

import os
from contextlib import suppress
from pathlib import Path

from weber.errors import DataError


def write_whole(path: Path, data: bytes) -> None:
    """Write a file beside its place, and rename it when all of it is on the disk. A file that was there keeps its permissions.

    Raises DataError with a one-line reason where the folder cannot be written to.
    """
    unfinished = path.with_name(f".{path.name}.{os.getpid()}.tmp")
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        with unfinished.open("wb") as file:
            file.write(data)
            file.flush()
            os.fsync(file.fileno())
        with suppress(FileNotFoundError):
            unfinished.chmod(path.stat().st_mode & 0o777)
        os.replace(unfinished, path)
    except OSError as error:
        with suppress(OSError):
            unfinished.unlink()
        raise DataError(
            "A file cannot be written.",
            got=f"{path}: {error.strerror or error}",
            fix="check the folder's permissions and the disk's space",
        ) from error
