"""Files in a local folder."""

from __future__ import annotations

import os
from collections.abc import Sequence
from pathlib import Path
from stat import S_ISREG

from weber.data.backends.backend import FileStat
from weber.errors import DataError


class LocalBackend:
    """Files in a local folder; symbolic links are followed, and each real folder is listed once, so that loops end."""

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
        try:
            return path.read_bytes()
        except OSError as error:
            raise DataError(f"unreadable file: {error.strerror or error}") from error

    def stat(self, path: Path) -> FileStat:
        """Size and time of last change."""
        try:
            stat = path.stat()
        except OSError as error:
            raise DataError(f"unreadable file: {error.strerror or error}") from error
        if not S_ISREG(stat.st_mode):
            raise DataError("unreadable file: neither a file nor a link to one")
        return FileStat(stat.st_size, stat.st_mtime_ns)


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
