"""Which shards a folder of encoded tensors has and which samples they hold.

A shard's header is read when something is asked of it, if the index file beside the shards knows what it holds, else at once. Damage
is kept for a look and counts as missing: a file with a broken header is renamed to `*.damaged`, a sample with broken bytes is noted in
`damaged.txt`.
"""

from __future__ import annotations

import errno
import os
import re
import secrets
import time
from collections.abc import Iterable, Mapping, Set
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from weber.cache.index import Index, is_indexed, read_index, write_index
from weber.cache.key import KEY_BYTES, Keys, pack_keys
from weber.cache.shard import DamagedShardError, Shard, load_shard
from weber.errors import CacheError

TEMPORARY, DAMAGED = ".tmp", ".damaged"
NOTES_NAME, INDEX_NAME = "damaged.txt", "index.bin"
MIN_NEW_SHARDS = 64
"""So many headers are read at once before they are worth an index file."""

_SHARD_NAME = re.compile(r"\d{8}T\d{6}-\d+-[0-9a-f]{8}\.safetensors")


@dataclass(frozen=True)
class Damage:
    """One thing that was set aside: a whole shard (`key` is None) or one sample of it."""

    shard: str
    key: str | None
    reason: str


class Catalog:
    """The shards of a folder by name, and the one that holds a sample."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.set_aside: list[Damage] = []
        self._opened: dict[str, Shard] = {}
        self._samples: dict[str, Shard] = {}
        self._unreadable: set[str] = set()
        self._notes: Mapping[str, Set[str]] = {}
        self._index: Index | None = None
        self._indexed: set[str] = set()  # shards whose headers are not read yet, because the index knows what they hold
        self.refresh()

    def __contains__(self, key: object) -> bool:
        if key in self._samples:
            return True
        return isinstance(key, str) and any(key not in self._notes.get(name, ()) for name in self._list_holders(key))

    def find_lacking(self, keys: Keys) -> NDArray[np.int64]:
        """The places of those of many keys that no shard holds."""
        opened = pack_keys([key for key in self._samples if is_indexed(key)]).reshape(-1).view(f"S{KEY_BYTES}")
        lacking = ~np.isin(np.ascontiguousarray(keys).reshape(-1).view(f"S{KEY_BYTES}"), opened)
        if self._index and self._indexed:
            shards = self._index.find_all(keys)
            is_sure = np.array([name in self._indexed and name not in self._notes for name in self._index.sizes], np.bool_)
            unsure = np.flatnonzero(lacking & (shards >= 0) & ~is_sure[shards])
            lacking &= ~((shards >= 0) & is_sure[shards])
            lacking[unsure] = [keys[place].tobytes().hex() not in self for place in unsure.tolist()]
        return np.flatnonzero(lacking)

    def find(self, key: str) -> Shard | None:
        """The shard that holds a sample, its header read."""
        holders = [] if key in self._samples else self._list_holders(key)
        while holders and key not in self._samples:
            self.open(holders.pop())
        return self._samples.get(key)

    def read_all(self) -> dict[str, Shard]:
        """The shard of every sample, for which every header is read."""
        for name in sorted(self._indexed):
            self.open(name)
        return self._samples

    def list_shards(self) -> list[Shard]:
        """All shards, all headers read."""
        self.read_all()
        return list(self._opened.values())

    def refresh(self) -> set[str]:
        """Take in the shards that other processes have written since; those that are gone."""
        sizes = measure_files(self.folder, "")
        self._notes = _read_notes(self.folder)
        if not self._opened:
            self._take_index(sizes)
        gone = (self._opened.keys() | self._indexed) - sizes.keys()
        self.forget(gone)
        new = sorted(sizes.keys() - self._opened.keys() - self._indexed - self._unreadable)
        for name in new:
            self.open(name)
        if len(new) >= MIN_NEW_SHARDS:
            self.keep_index()
        return gone

    def open(self, name: str) -> None:
        """Read the header of a shard; a damaged one is set aside."""
        self._indexed.discard(name)
        path = self.folder / name
        try:
            shard = load_shard(path)
        except FileNotFoundError:  # collected meanwhile by another process
            return
        except DamagedShardError as error:
            self.set_aside.append(Damage(name, None, str(error)))
            self._unreadable.add(name)
            with suppress(OSError):  # read-only folder, or mapped by a process on Windows: it is skipped all the same
                path.replace(path.with_name(name + DAMAGED))
            return
        except OSError as error:
            raise build_error(path, "read", error=error) from error
        for key in self._notes.get(name, ()):
            shard.samples.pop(key, None)
        self._opened[name] = shard
        self._samples.update(dict.fromkeys(shard.samples, shard))

    def forget(self, names: Iterable[str]) -> None:
        """Let go of shards that are gone."""
        gone = set(names)
        self._indexed -= gone
        opened = gone & self._opened.keys()
        for name in opened:
            del self._opened[name]
        if opened:
            self._samples = {key: shard for shard in self._opened.values() for key in shard.samples}

    def drop(self, shard: Shard, key: str, *, reason: str) -> None:
        """Note that the bytes of a sample are damaged in this shard, here and for all who open the folder."""
        self.set_aside.append(Damage(shard.name, key, reason))
        del shard.samples[key]
        if self._samples[key] is shard:
            del self._samples[key]
            for other in self._opened.values():
                if key in other.samples:
                    self._samples[key] = other
        with suppress(OSError), (self.folder / NOTES_NAME).open("a") as file:  # in a read-only folder each process finds it anew
            file.write(f"{shard.name} {key}\n")

    def keep_index(self) -> None:
        """Write the index file anew if it lacks many shards. In a folder that may only be read there is none."""
        known = self._index.sizes if self._index else {}
        if len(self._opened.keys() - known.keys()) < MIN_NEW_SHARDS:
            return
        file = self.folder / (draw_shard_name() + TEMPORARY)
        rows = {name: (shard.num_bytes, list(shard.samples)) for name, shard in self._opened.items() if all(map(is_indexed, shard.samples))}
        with suppress(OSError):
            write_index(file, rows, known=self._index, keep=sorted(self._indexed))
            file.replace(self.folder / INDEX_NAME)
            self._index = read_index(self.folder / INDEX_NAME) or self._index
        with suppress(OSError):
            file.unlink(missing_ok=True)

    def _take_index(self, sizes: Mapping[str, int]) -> None:
        try:
            self._index = read_index(self.folder / INDEX_NAME)
        except OSError as error:
            raise build_error(self.folder / INDEX_NAME, "read", error=error) from error
        known = self._index.sizes if self._index else {}
        self._indexed = {name for name, num_bytes in sizes.items() if known.get(name) == num_bytes} - self._unreadable

    def _list_holders(self, key: str) -> list[str]:
        """The shards that hold a sample and whose headers are not read yet."""
        return [name for name in self._index.find(key) if name in self._indexed] if self._index and self._indexed else []


def is_shard(name: str) -> bool:
    """Whether a file has the name of a shard."""
    return _SHARD_NAME.fullmatch(name) is not None


def list_files(folder: Path, suffix: str) -> list[Path]:
    """The shards of a folder (or what is left of shards, by a further ending), in order."""
    return sorted(folder / name for name in measure_files(folder, suffix))


def measure_files(folder: Path, suffix: str) -> dict[str, int]:
    """The bytes of each of those files."""
    try:
        with os.scandir(folder) as entries:
            found = [entry for entry in entries if entry.name.endswith(suffix) and is_shard(entry.name.removesuffix(suffix))]
    except FileNotFoundError:
        return {}
    except OSError as error:
        raise build_error(folder, "read", error=error) from error
    sizes = {}
    for entry in found:
        with suppress(FileNotFoundError):  # renamed or deleted meanwhile by another process
            sizes[entry.name] = entry.stat().st_size
    return sizes


def draw_shard_name() -> str:
    """A name that no other shard has."""
    return f"{time.strftime('%Y%m%dT%H%M%S', time.gmtime())}-{os.getpid()}-{secrets.token_hex(4)}.safetensors"


def build_error(path: Path, verb: str, *, error: OSError) -> CacheError:
    """What to say when the folder, or a file of it, cannot be read or written."""
    if error.errno in (errno.ENOSPC, errno.EDQUOT, errno.EFBIG):
        fix = "free space on that disk (`weber cache gc` deletes what no run needs), or set output.cache to a folder on a larger one"
    else:
        fix = "set output.cache to a folder that you may read and write, or change its permissions"
    return CacheError(f"The cache {path} cannot be {verb}", got=error.strerror or str(error), fix=fix)


def _read_notes(folder: Path) -> dict[str, set[str]]:
    path = folder / NOTES_NAME
    try:
        lines = path.read_text().splitlines()
    except FileNotFoundError:
        return {}
    except OSError as error:
        raise build_error(path, "read", error=error) from error
    notes: dict[str, set[str]] = {}
    for name, _, key in (line.partition(" ") for line in lines):
        notes.setdefault(name, set()).add(key)
    return notes
