"""Files in tar archives, wherever those lie: the name of an archive is that of a folder, as in `cats.tar/000.jpg`."""

from __future__ import annotations

import os
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from functools import partial
from operator import itemgetter
from pathlib import Path
from typing import NamedTuple

from weber.data.backends.backend import Backend, FileStat, Listing
from weber.data.backends.tar_index import TarIndex, check_whole, load_index
from weber.errors import DataError

ENDING = ".tar"
_NUM_AT_ONCE = 16


class Place(NamedTuple):
    """A file or folder in an archive; without a name the archive itself."""

    archive: Path
    name: str


class TarBackend:
    """Files in archives that `files` reads. Indexes are kept below `folder`. Not of archives that are packed in addition (`.tar.gz`), in
    which nothing can be found without unpacking all of it."""

    def __init__(self, files: Backend, folder: Path) -> None:
        self._files, self._folder = files, folder
        self._known: dict[Path, TarIndex] = {}
        self._are_files: dict[Path, bool] = {}
        self._homes: dict[str, Place | None] = {}  # of folders: a path for each of a million files takes longer than to read them

    def split(self, path: Path) -> Place | None:
        """The outermost archive that a path leads through; None where there is none, and where what is called so is a folder."""
        text = str(path)
        if ENDING not in text.lower():
            return None
        home, _, name = text.rpartition(os.sep)
        if home not in self._homes:
            self._homes[home] = self._find_archive(Path(home))
        place = self._homes[home]
        if place is not None:
            return Place(place.archive, f"{place.name}/{name}" if place.name else name)
        return Place(path, "") if name.lower().endswith(ENDING) and self._is_file(path) else None

    def _find_archive(self, path: Path) -> Place | None:
        parts = path.parts
        for number, part in enumerate(parts, 1):
            if part.lower().endswith(ENDING):
                archive = Path(*parts[:number])
                if self._is_file(archive):
                    return Place(archive, "/".join(parts[number:]))
        return None

    def expand(self, listing: Listing, *, recursive: bool) -> Listing:
        """A listing with the files of its archives in their place. An archive that is broken stays in it, beside what can be read."""
        archives = [place for place, name in enumerate(listing.names) if name.lower().endswith(ENDING) and name not in listing.broken]
        if not archives:
            return listing
        with ThreadPoolExecutor(_NUM_AT_ONCE) as pool:  # elsewhere each of many headers is a question of its own
            indexes = dict(zip(archives, pool.map(partial(self._try, listing), archives), strict=True))
        found: list[tuple[str, FileStat | None]] = []
        broken = dict(listing.broken)
        for place, (name, stat) in enumerate(zip(listing.names, listing.stats, strict=True)):
            index = indexes.get(place)
            if not isinstance(index, TarIndex):
                found.append((name, stat))
                broken |= {} if index is None else {name: index.what}
                continue
            inside = _list_files(index, "", recursive=recursive)
            found += [(f"{name}/{one}", stat) for one, stat in inside]
            broken |= {f"{name}/{one}" if one else name: reason for one, reason in index.broken.items()}
            found += [(name, stat)] if "" in index.broken else []
        found.sort(key=itemgetter(0))
        return Listing(listing.folder, [name for name, _ in found], [stat for _, stat in found], broken)

    def list(self, folder: Path, *, recursive: bool) -> Listing:
        """See `Backend`; an archive that cannot be read at all is an error."""
        place = self._need(folder)
        index = self._load(place.archive, self._files.stat(place.archive))
        start = f"{place.name}/" if place.name else ""
        found = sorted(_list_files(index, start, recursive=recursive), key=itemgetter(0))
        if not found and index.broken:
            raise DataError(f'the archive "{place.archive}" cannot be used', got=next(iter(index.broken.values())), fix="name another one")
        broken = {name[len(start) :] or folder.name: reason for name, reason in index.broken.items() if name.startswith(start) or not name}
        lost = [(folder.name, index.stat)] if "" in index.broken else []
        names = [*found, *lost]
        return Listing(folder, [name for name, _ in names], [stat for _, stat in names], broken)

    def read(self, path: Path) -> bytes:
        """See `Backend`."""
        archive, start, size = self._locate(path)
        return check_whole(self._files.read_part(archive, start, num_bytes=size), size)

    def read_part(self, path: Path, start: int, *, num_bytes: int) -> bytes:
        """See `Backend`."""
        archive, first, size = self._locate(path)
        return self._files.read_part(archive, first + start, num_bytes=min(num_bytes, max(0, size - start)))

    def stat(self, path: Path) -> FileStat:
        """See `Backend`: a file is another one when its archive is, or when it lies elsewhere in it."""
        archive, start, size = self._locate(path)
        return _build_stat(self._load(archive).stat, start, size)

    def _locate(self, path: Path) -> tuple[Path, int, int]:
        """The archive of a file, its start there and its size."""
        place = self._need(path)
        index = self._load(place.archive)
        if place.name in index.broken:
            raise DataError(index.broken[place.name])
        if place.name not in index.files:
            raise DataError("unreadable file: it is not in the archive")
        return place.archive, *index.files[place.name]

    def _need(self, path: Path) -> Place:
        place = self.split(path)
        assert place is not None
        return place

    def _is_file(self, archive: Path) -> bool:
        if archive not in self._are_files:
            try:
                self._files.stat(archive)
                self._are_files[archive] = True
            except DataError:
                self._are_files[archive] = False
        return self._are_files[archive]

    def _try(self, listing: Listing, place: int) -> TarIndex | DataError:
        try:
            return self._load(listing.folder / listing.names[place], listing.stats[place])
        except DataError as error:
            return error

    def _load(self, archive: Path, stat: FileStat | None = None) -> TarIndex:
        """The index of an archive, of that stat if it was asked for just now."""
        known = self._known.get(archive)
        if known is None or stat not in (None, known.stat):
            known = load_index(archive, stat or self._files.stat(archive), files=self._files, folder=self._folder)
            self._known[archive] = known
        return known


def _list_files(index: TarIndex, start: str, *, recursive: bool) -> Iterator[tuple[str, FileStat | None]]:
    """The files below a folder of an archive, those that are broken too, by their names from there."""
    for name, place in index.files.items():
        if name.startswith(start) and (recursive or "/" not in name[len(start) :]):
            yield name[len(start) :], _build_stat(index.stat, *place)
    for name in index.broken:
        if name and name.startswith(start) and (recursive or "/" not in name[len(start) :]):
            yield name[len(start) :], None


def _build_stat(archive: FileStat, start: int, size: int) -> FileStat:
    return FileStat(size, archive.mtime_ns, f"{archive.size_bytes} {archive.mark} {start}")
