"""Which backend has a file, by how its path starts: everything that is read goes through here."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path

from weber.config.elsewhere import find_scheme
from weber.data.backends.backend import Backend, FileStat, Listing
from weber.data.backends.local import LocalBackend
from weber.data.backends.stores import STORES, StoreBackend
from weber.data.backends.tars import TarBackend
from weber.data.backends.web import SCHEMES, WebBackend

LOCAL: Backend = LocalBackend()

DOWNLOADS, ARCHIVES, CAPTIONS, TABLES = FETCHED_FOLDERS = ("downloads", "archives", "captions", "tables")
"""Of the cache folder, which may have nothing else when a first start was killed: files of the web; where files lie in archives; captions
of elsewhere; pictures of Parquet files."""


def is_known(path: Path) -> bool:
    """Is there a backend for a path?"""
    return find_scheme(path) in ("", *SCHEMES, *STORES)


class Schemes:
    """A backend that asks the one which a path's scheme names. What is fetched from elsewhere is kept below `folder`."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.web = WebBackend(folder / DOWNLOADS, local=LOCAL)
        self._schemes: Mapping[str, Backend] = {"": LOCAL, **dict.fromkeys(SCHEMES, self.web), **dict.fromkeys(STORES, StoreBackend())}

    def list(self, folder: Path, *, recursive: bool) -> Listing:
        """See `Backend`."""
        return self._find(folder).list(folder, recursive=recursive)

    def read(self, path: Path) -> bytes:
        """See `Backend`."""
        return self._find(path).read(path)

    def read_part(self, path: Path, start: int, *, num_bytes: int) -> bytes:
        """See `Backend`."""
        return self._find(path).read_part(path, start, num_bytes=num_bytes)

    def stat(self, path: Path) -> FileStat:
        """See `Backend`."""
        return self._find(path).stat(path)

    def _find(self, path: Path) -> Backend:
        return self._schemes[find_scheme(path)]


class Sources(Schemes):
    """A backend for all places, in which tar archives are the folders that they hold."""

    def __init__(self, folder: Path) -> None:
        super().__init__(folder)
        self._tars = TarBackend(Schemes(folder), folder / ARCHIVES)

    def list(self, folder: Path, *, recursive: bool) -> Listing:
        """See `Backend`."""
        if self._tars.split(folder) is not None:
            return self._tars.list(folder, recursive=recursive)
        return self._tars.expand(super().list(folder, recursive=recursive), recursive=recursive)

    def is_archived(self, path: Path) -> bool:
        """Is it an archive, or in one?"""
        return self._tars.split(path) is not None

    def is_of_web(self, path: Path) -> bool:
        """Is it fetched by its own address, and not with an archive?"""
        return find_scheme(path) in SCHEMES and self._find(path) is self.web

    def _find(self, path: Path) -> Backend:
        place = self._tars.split(path)
        return self._tars if place is not None and place.name else super()._find(path)
