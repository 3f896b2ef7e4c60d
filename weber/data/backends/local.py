"""Files in a local folder."""

from __future__ import annotations

import os
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from functools import partial
from hashlib import blake2b
from pathlib import Path
from stat import S_ISREG
from typing import NamedTuple

from weber.data.backends.backend import FileStat, Listing
from weber.errors import DataError

_SAMPLE_BYTES = 4096
_NUM_THREADS = 16
_NUM_PER_JOB = 1024


class LocalBackend:
    """Files in a local folder; symbolic links are followed, and each real folder is listed once, so that loops end."""

    samples = os.name == "nt"
    """Does a file's stat look into the file?"""

    def list(self, folder: Path, *, recursive: bool) -> Listing:
        """All files that are not hidden, nor in a hidden folder, in the order of their posix names below the folder.

        Folders of one depth are listed at once, and many files are asked for their stat at once: on a network each answer takes its time.
        """
        names: list[str] = []
        seen: set[tuple[int, int]] = set()
        level = [""]
        with ThreadPoolExecutor(_NUM_THREADS) as pool:
            while level:
                deeper: list[str] = []
                for prefix, found in zip(level, pool.map(lambda prefix: _list_one(folder / prefix), level), strict=True):
                    if found.identity not in seen:
                        seen.add(found.identity)
                        names += [prefix + name for name in found.files]
                        deeper += [f"{prefix}{name}/" for name in found.folders]
                level = sorted(deeper) if recursive else []
            names.sort()
            portions = [names[start : start + _NUM_PER_JOB] for start in range(0, len(names), _NUM_PER_JOB)]
            stats = [stat for found in pool.map(partial(self._stat_all, str(folder)), portions) for stat in found]
        return Listing(folder, names, stats)

    def _stat_all(self, folder: str, names: Sequence[str]) -> Sequence[FileStat | None]:
        stats: list[FileStat | None] = []
        for name in names:
            try:
                stats.append(self._stat(f"{folder}{os.sep}{name}"))
            except DataError:  # said where the file is needed
                stats.append(None)
        return stats

    def read(self, path: Path) -> bytes:
        """The whole file."""
        _stat_regular(str(path))
        try:
            return path.read_bytes()
        except OSError as error:
            raise DataError(f"unreadable file: {error.strerror or error}") from error

    def read_part(self, path: Path, start: int, *, num_bytes: int) -> bytes:
        """So many bytes of the file from one on, fewer where it ends before."""
        _stat_regular(str(path))
        try:
            with path.open("rb") as file:
                file.seek(start)
                return file.read(num_bytes)
        except OSError as error:
            raise DataError(f"unreadable file: {error.strerror or error}") from error

    def stat(self, path: Path) -> FileStat:
        """Size, time of last change, and what else shows one.

        Archives and copies set the time of last change to whatever they like, but not the time at which that was done (`st_ctime`).
        On Windows that is the time of creation, so there a few bytes of the file are compared too.
        """
        return self._stat(str(path))

    def _stat(self, path: str) -> FileStat:
        stat = _stat_regular(path)
        sample = self._sample(path, stat.st_size) if self.samples else ""
        return FileStat(stat.st_size, stat.st_mtime_ns, f"{stat.st_ctime_ns} {stat.st_ino}{sample}")

    def _sample(self, path: str, size_bytes: int) -> str:
        """A hash of the file's start, middle and end."""
        digest = blake2b(digest_size=8)
        try:
            with Path(path).open("rb") as file:
                for place in (0, size_bytes // 2, max(0, size_bytes - _SAMPLE_BYTES)):
                    file.seek(place)
                    digest.update(file.read(_SAMPLE_BYTES))
        except OSError as error:
            raise DataError(f"unreadable file: {error.strerror or error}") from error
        return f" {digest.hexdigest()}"


def _stat_regular(path: str) -> os.stat_result:
    """Raise DataError for what is no file: to read a pipe would wait for ever."""
    try:
        stat = os.stat(path)  # noqa: PTH116 a Path for each of a million files takes longer than their stats
    except OSError as error:
        raise DataError(f"unreadable file: {error.strerror or error}") from error
    if not S_ISREG(stat.st_mode):
        raise DataError("unreadable file: neither a file nor a link to one")
    return stat


class _Found(NamedTuple):
    """Names of the files and folders in one folder, sorted, and which real folder that is."""

    identity: tuple[int, int]
    files: Sequence[str]
    folders: Sequence[str]


def _list_one(folder: Path) -> _Found:
    files: list[str] = []
    folders: list[str] = []
    try:
        stat = folder.stat()
        with os.scandir(folder) as entries:
            for entry in entries:
                if entry.name.startswith("."):
                    continue
                # Path.is_dir answers no for a link to itself, where DirEntry.is_dir raises
                is_folder = Path(entry).is_dir() if entry.is_symlink() else entry.is_dir()
                (folders if is_folder else files).append(entry.name)
    except OSError as error:
        raise DataError(
            f'the folder "{folder}" cannot be listed', got=str(error.strerror or error), fix="allow reading it, or move it out of the set"
        ) from error
    return _Found((stat.st_dev, stat.st_ino), files, sorted(folders))
