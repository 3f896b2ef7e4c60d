"""Caption files in archives and elsewhere: what they hold is kept, and asked for again when their stat says that they changed."""

from __future__ import annotations

import json
import os
from collections.abc import Callable, Mapping, Sequence
from contextlib import suppress
from hashlib import blake2b
from pathlib import Path
from uuid import uuid4

from weber.data.backends.backend import FileStat
from weber.errors import DataError

Read = Callable[[Sequence[str]], Mapping[str, bytes | DataError]]


class Remembered:
    """The texts of a folder's files, in one file below `place`."""

    def __init__(self, folder: Path, place: Path) -> None:
        self._file = place / f"{blake2b(folder.as_posix().encode(errors='surrogatepass'), digest_size=16).hexdigest()}.json"

    def read_all(self, stats: Mapping[str, FileStat | None], read: Read) -> dict[str, bytes | DataError]:
        """What files of these stats hold; those that are new or changed are read, and what went wrong is asked for again next time."""
        known = self._load()
        kept = {name: known[name] for name, stat in stats.items() if name in known and stat is not None and tuple(known[name][0]) == stat}
        new = [name for name in stats if name not in kept]
        found = {name: _decode(text) for name, (_, text) in kept.items()} | dict(read(new) if new else {})
        if new or len(kept) < len(known):
            self._save({name: (stats[name], _encode(data)) for name, data in found.items() if isinstance(data, bytes)})
        return {name: found[name] for name in stats}

    def _load(self) -> dict[str, tuple[list[object], str]]:
        with suppress(OSError, ValueError):
            return dict(json.loads(self._file.read_text(encoding="utf-8")))
        return {}

    def _save(self, texts: Mapping[str, tuple[FileStat | None, str]]) -> None:
        with suppress(OSError):  # a full disk is the cache's to refuse
            self._file.parent.mkdir(parents=True, exist_ok=True)
            unfinished = self._file.with_suffix(f".{uuid4().hex[:8]}.unfinished")
            unfinished.write_text(json.dumps(texts), encoding="utf-8")
            os.replace(unfinished, self._file)


def _encode(data: bytes) -> str:
    """Any bytes as text."""
    return data.decode("latin-1")


def _decode(text: str) -> bytes:
    return text.encode("latin-1")
