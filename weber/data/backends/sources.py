"""Which backend has a file, by how its path starts: everything that is read goes through here."""

from __future__ import annotations

from pathlib import Path

from weber.data.backends.backend import Backend, FileStat, Listing
from weber.data.backends.local import LocalBackend

LOCAL: Backend = LocalBackend()


class Sources:
    """A backend that asks the one which has a file. What was fetched from elsewhere is kept below `folder`."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder

    def list(self, folder: Path, *, recursive: bool) -> Listing:
        """See `Backend`."""
        return self._find(folder).list(folder, recursive=recursive)

    def read(self, path: Path) -> bytes:
        """See `Backend`."""
        return self._find(path).read(path)

    def read_start(self, path: Path, num_bytes: int) -> bytes:
        """See `Backend`."""
        return self._find(path).read_start(path, num_bytes)

    def stat(self, path: Path) -> FileStat:
        """See `Backend`."""
        return self._find(path).stat(path)

    def _find(self, path: Path) -> Backend:
        return LOCAL
