"""What the data room asks of a place where files lie."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
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
    had. `broken` says of some why they cannot be used, as `kind: advice`, before anything of them is read."""

    folder: Path
    names: Sequence[str]
    stats: Sequence[FileStat | None]
    broken: Mapping[str, str] = field(default_factory=dict)

    def choose(self, places: Sequence[int]) -> Listing:
        """Those of some places alone."""
        names = [self.names[place] for place in places]
        return Listing(self.folder, names, [self.stats[place] for place in places], self.broken)


class Backend(Protocol):
    """A place where files lie. Everything that goes wrong is a DataError whose `what` is a one-line reason."""

    def list(self, folder: Path, *, recursive: bool) -> Listing:
        """All files that are not hidden, nor in a hidden folder, in the order of their names."""
        ...

    def read(self, path: Path) -> bytes:
        """The whole file."""
        ...

    def read_part(self, path: Path, start: int, *, num_bytes: int) -> bytes:
        """So many bytes of the file from one on, fewer where it ends before."""
        ...

    def stat(self, path: Path) -> FileStat:
        """Size, time of last change, and what else shows one."""
        ...
