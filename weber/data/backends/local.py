"""Files in a local folder."""

from __future__ import annotations

import os
from collections.abc import Sequence
from hashlib import blake2b
from pathlib import Path
from stat import S_ISREG

from weber.data.backends.backend import FileStat
from weber.errors import DataError

_SAMPLE_BYTES = 4096


class LocalBackend:
    """Files in a local folder; symbolic links are followed, and each real folder is listed once, so that loops end."""

    samples = os.name == "nt"
    """Does a file's stat look into the file?"""

    def list(self, folder: Path, *, recursive: bool) -> Sequence[Path]:
        """All files that are not hidden, nor in a hidden folder, in the order of their posix names below the folder."""
        names: list[str] = []
        seen: set[tuple[int, int]] = set()
        pending = [""]
        while pending:
            prefix = pending.pop()
            files, folders = _list_one(folder / prefix, seen)
            names += [prefix + name for name in files]
            if recursive:
                pending += [f"{prefix}{name}/" for name in reversed(folders)]
        return [folder / name for name in sorted(names)]

    def read(self, path: Path) -> bytes:
        """The whole file."""
        _stat_regular(path)
        try:
            return path.read_bytes()
        except OSError as error:
            raise DataError(f"unreadable file: {error.strerror or error}") from error

    def read_start(self, path: Path, num_bytes: int) -> bytes:
        """The first bytes of the file, fewer where it is shorter."""
        _stat_regular(path)
        try:
            with path.open("rb") as file:
                return file.read(num_bytes)
        except OSError as error:
            raise DataError(f"unreadable file: {error.strerror or error}") from error

    def stat(self, path: Path) -> FileStat:
        """Size, time of last change, and what else shows one.

        Archives and copies set the time of last change to whatever they like, but not the time at which that was done (`st_ctime`).
        On Windows that is the time of creation, so there a few bytes of the file are compared too.
        """
        stat = _stat_regular(path)
        sample = self._sample(path, stat.st_size) if self.samples else ""
        return FileStat(stat.st_size, stat.st_mtime_ns, f"{stat.st_ctime_ns} {stat.st_ino}{sample}")

    def _sample(self, path: Path, size_bytes: int) -> str:
        """A hash of the file's start, middle and end."""
        digest = blake2b(digest_size=8)
        try:
            with path.open("rb") as file:
                for place in (0, size_bytes // 2, max(0, size_bytes - _SAMPLE_BYTES)):
                    file.seek(place)
                    digest.update(file.read(_SAMPLE_BYTES))
        except OSError as error:
            raise DataError(f"unreadable file: {error.strerror or error}") from error
        return f" {digest.hexdigest()}"


def _stat_regular(path: Path) -> os.stat_result:
    """Raise DataError for what is no file: to read a pipe would wait for ever."""
    try:
        stat = path.stat()
    except OSError as error:
        raise DataError(f"unreadable file: {error.strerror or error}") from error
    if not S_ISREG(stat.st_mode):
        raise DataError("unreadable file: neither a file nor a link to one")
    return stat


def _list_one(folder: Path, seen: set[tuple[int, int]]) -> tuple[list[str], list[str]]:
    """Names of the files and folders in one folder, sorted; nothing if the same real folder was seen before."""
    files: list[str] = []
    folders: list[str] = []
    try:
        stat = folder.stat()
        if (stat.st_dev, stat.st_ino) in seen:
            return [], []
        seen.add((stat.st_dev, stat.st_ino))
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
    return sorted(files), sorted(folders)
