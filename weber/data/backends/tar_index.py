"""Where the files of a tar archive lie in it: read once from its headers, then kept until the archive is another one."""

from __future__ import annotations

import io
import json
import os
import posixpath
import tarfile
from contextlib import suppress
from dataclasses import asdict, dataclass
from hashlib import blake2b
from pathlib import Path
from uuid import uuid4

from weber.data.backends.backend import Backend, FileStat
from weber.errors import DataError

_BLOCK_BYTES = 512
_BUFFER_BYTES = 2**16  # of a header and small files behind it; large ones are jumped over
_CUT = "archive that is cut off: what comes before that is used"
_DAMAGED = "damaged archive: what comes before the damage is used"


@dataclass(frozen=True)
class TarIndex:
    """Start and size of each file of an archive of that stat, by name. `broken` says why of names that cannot be read; an empty name is
    the archive itself."""

    stat: FileStat
    files: dict[str, tuple[int, int]]
    broken: dict[str, str]


def load_index(path: Path, stat: FileStat, *, files: Backend, folder: Path) -> TarIndex:
    """The index of an archive, which an earlier start may have left in `folder`."""
    kept = folder / f"{blake2b(path.as_posix().encode(errors='surrogatepass'), digest_size=16).hexdigest()}.json"
    with suppress(OSError, ValueError, KeyError, TypeError):
        known = json.loads(kept.read_text(encoding="utf-8"))
        if tuple(known["stat"]) == stat:
            return TarIndex(stat, {name: (start, size) for name, (start, size) in known["files"].items()}, known["broken"])
    index = _read_index(path, stat, files)
    with suppress(OSError):  # a full disk is the cache's to refuse
        folder.mkdir(parents=True, exist_ok=True)
        unfinished = kept.with_suffix(f".{uuid4().hex[:8]}.unfinished")
        unfinished.write_text(json.dumps(asdict(index)), encoding="utf-8")
        os.replace(unfinished, kept)
    return index


def _read_index(path: Path, stat: FileStat, files: Backend) -> TarIndex:
    source = io.BufferedReader(_Parts(path, stat.size_bytes, files=files), _BUFFER_BYTES)  # type: ignore[type-var]
    members: list[tarfile.TarInfo] = []
    try:
        with tarfile.open(fileobj=source, mode="r:") as archive:
            while (member := archive.next()) is not None:
                members.append(member)
                archive.members = []  # type: ignore[attr-defined]  # it would keep all of them once more
            end, reason = archive.offset, ""
            if not stat.size_bytes - end:
                reason = _CUT
            elif files.read_part(path, end, num_bytes=_BLOCK_BYTES) != bytes(_BLOCK_BYTES):
                reason = _DAMAGED if stat.size_bytes - end >= _BLOCK_BYTES else _CUT
    except (tarfile.TarError, OSError, ValueError, EOFError) as error:
        reason = _CUT if members else f"damaged archive: {error}"
    found = _sort_members(members, stat)
    if reason:
        found.broken[""] = reason
    return found


def _sort_members(members: list[tarfile.TarInfo], stat: FileStat) -> TarIndex:
    """What can be read of an archive. Of files with one name the last counts, as when it is unpacked."""
    places: dict[str, tuple[int, int]] = {}
    links: dict[str, str] = {}
    broken: dict[str, str] = {}
    for one in members:
        name = posixpath.normpath(one.name)
        if one.isdir() or any(part.startswith(".") and part != ".." for part in name.split("/")):
            continue
        places.pop(name, None)
        links.pop(name, None)
        broken.pop(name, None)
        if name.startswith(("/", "..")):
            broken[name.lstrip("/.")] = "file outside of its archive: its name starts with .. or /"
        elif one.islnk() or one.issym():
            links[name] = posixpath.normpath(one.linkname if one.islnk() else posixpath.join(posixpath.dirname(name), one.linkname))
        elif not one.isreg() or one.issparse():
            broken[name] = "no plain file in an archive"
        elif one.offset_data + one.size > stat.size_bytes:
            broken[name] = "unreadable file: the archive ends in the middle of it"
        elif name.lower().endswith(".tar"):
            broken[name] = "archive in an archive"
        else:
            places[name] = (one.offset_data, one.size)
    for name, target in links.items():
        target = links.get(target, target)
        if target in places:
            places[name] = places[target]
        else:
            broken[name] = "link that leads nowhere"
    if not places and not broken:
        broken[""] = "archive without files"
    return TarIndex(stat, places, broken)


class _Parts(io.RawIOBase):
    """A file that is read in parts, wherever it lies."""

    def __init__(self, path: Path, size_bytes: int, *, files: Backend) -> None:
        self._path, self._size, self._files, self._place = path, size_bytes, files, 0

    def readable(self) -> bool:
        """Yes."""
        return True

    def seekable(self) -> bool:
        """Yes."""
        return True

    def seek(self, offset: int, whence: int = os.SEEK_SET) -> int:
        """See `io.RawIOBase`."""
        start = {os.SEEK_SET: 0, os.SEEK_CUR: self._place, os.SEEK_END: self._size}[whence]
        self._place = start + offset
        return self._place

    def readinto(self, buffer: bytearray) -> int:  # type: ignore[override]
        """See `io.RawIOBase`."""
        wanted = min(len(buffer), max(0, self._size - self._place))
        data = self._files.read_part(self._path, self._place, num_bytes=wanted) if wanted else b""
        buffer[: len(data)] = data
        self._place += len(data)
        return len(data)


def check_whole(data: bytes, num_bytes: int) -> bytes:
    """Data of so many bytes. DataError where there are fewer."""
    if len(data) != num_bytes:
        raise DataError(f"unreadable file: {len(data)} bytes came, but it has {num_bytes}")
    return data
