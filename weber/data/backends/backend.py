"""What the data room asks of a place where files lie."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import NamedTuple, Protocol


class FileStat(NamedTuple):
    """What shows that a file was changed, without reading it: `mark` is all beside its size and the time that it names itself."""

    size_bytes: int
    mtime_ns: int
    mark: str = ""


@dataclass(frozen=True)
class Listing:
    """The files of a folder: their names below it with `/` between folders, in order, and a stat of each, None where there is none to be
    had."""

    folder: Path
    names: Sequence[str]
    stats: Sequence[FileStat | None]

    def choose(self, places: Sequence[int]) -> Listing:
        """Those of some places alone."""
        return Listing(self.folder, [self.names[place] for place in places], [self.stats[place] for place in places])


class Backend(Protocol):
    """A place where files lie. Everything that goes wrong is a DataError whose `what` is a one-line reason."""

    def list(self, folder: Path, *, recursive: bool) -> Listing:
        """All files that are not hidden, nor in a hidden folder, in the order of their names."""
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
