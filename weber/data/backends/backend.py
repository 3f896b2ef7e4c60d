"""What the data room asks of a place where files lie."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Protocol


@dataclass(frozen=True, slots=True)
class FileStat:
    """What shows that a file was changed, without opening it."""

    size_bytes: int
    mtime_ns: int


class Backend(Protocol):
    """A place where files lie. Everything that goes wrong is a DataError whose `what` is a one-line reason."""

    def list(self, folder: Path, *, recursive: bool) -> Sequence[Path]:
        """All files that are not hidden, nor in a hidden folder, in the order of their names below the folder."""
        ...

    def read(self, path: Path) -> bytes:
        """The whole file."""
        ...

    def stat(self, path: Path) -> FileStat:
        """Size and time of last change."""
        ...
