"""What the data room asks of a place where files lie."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Protocol


@dataclass(frozen=True, slots=True)
class FileStat:
    """What shows that a file was changed, without reading it: `mark` is all beside its size and the time that it names itself."""

    size_bytes: int
    mtime_ns: int
    mark: str = ""


class Backend(Protocol):
    """A place where files lie. Everything that goes wrong is a DataError whose `what` is a one-line reason."""

    def list(self, folder: Path, *, recursive: bool) -> Sequence[Path]:
        """All files that are not hidden, nor in a hidden folder, in the order of their names below the folder."""
        ...

    def read(self, path: Path) -> bytes:
        """The whole file."""
        ...

    def read_start(self, path: Path, num_bytes: int) -> bytes:
        """The first bytes of the file, fewer where it is shorter."""
        ...

    def stat(self, path: Path) -> FileStat:
        """Size, time of last change, and what else shows one."""
        ...
