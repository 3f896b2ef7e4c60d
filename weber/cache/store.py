"""A folder of encoded tensors: append-only shards, any number of readers and writers at once, no lock.

A shard appears whole or not at all (temporary name, fsync, rename). Its header is the index, and an index file is a memory of many
headers (`weber.cache.catalog`). A sample that several shards hold is read from any good copy. Damage counts as missing, so that it is
encoded again.
"""

from __future__ import annotations

import os
from collections.abc import Iterable, Mapping, Set
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from numpy.typing import NDArray
from torch import Tensor

from weber.cache.catalog import DAMAGED, NOTES_NAME, TEMPORARY, Catalog, Damage, build_error, draw_shard_name, list_files, measure_files
from weber.cache.key import Keys
from weber.cache.shard import DamagedShardError, Data, Sample, Shard, load_shard, write_shard
from weber.errors import CacheError
from weber.families.tensors import is_abandoned
from weber.progress import Progress, ignore_progress

MAX_SHARD_BYTES = 256 * 2**20

_MAX_MAPPED = 64  # an open map holds a file descriptor, and macOS allows 256


@dataclass(frozen=True)
class VerifyReport:
    """What `Store.verify` found; `num_bytes` is the size of the readable shards."""

    num_shards: int
    num_samples: int
    num_bytes: int
    set_aside: tuple[Damage, ...]
    damaged_files: tuple[Path, ...]
    temporary_files: tuple[Path, ...]


@dataclass(frozen=True)
class CollectReport:
    """What `Store.collect` did; `left_files` could not be deleted, for example because a process on Windows still reads them."""

    num_kept: int
    num_removed: int
    freed_bytes: int
    left_files: tuple[Path, ...]


class Store:
    """The samples of a folder by key. The folder need not exist until something is written."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.catalog = Catalog(folder)
        """Which shard holds which sample."""
        self.set_aside = self.catalog.set_aside
        self._mapped: dict[str, Data] = {}

    def __contains__(self, key: object) -> bool:
        return key in self.catalog

    def find_lacking(self, keys: Keys) -> NDArray[np.int64]:
        """The places of those of many keys that are not in the store."""
        return self.catalog.find_lacking(keys)

    def __len__(self) -> int:
        return len(self.catalog.read_all())

    def read(self, key: str) -> dict[str, Tensor]:
        """The tensors of a sample, as views of a read-only memory map: copy them; writing into them ends the process.

        The first read of a sample checks its bytes. CacheError if there is no good copy; `key in store` is then false.
        """
        num_known = len(self.set_aside)
        while (shard := self.catalog.find(key)) is not None:
            try:
                data = self._map(shard)
            except FileNotFoundError:  # another process has collected; the sample may be in a newer shard
                self._forget([shard.name])
                self.refresh()
                continue
            if key in shard.checked or self._check(shard, key, data):
                return shard.read(key, data)
        reasons = [damage.reason for place, damage in enumerate(self.set_aside) if damage.key == key or place >= num_known]
        raise CacheError(
            f"Sample {key} cannot be read from the cache {self.folder}",
            got=reasons[-1] if reasons else "no such sample",
            fix="start again: what is missing or damaged is then encoded again",
        )

    def refresh(self) -> None:
        """Take in the shards that other processes have written since, and let go of those that are gone."""
        self._forget(self.catalog.refresh())

    def check_writable(self) -> None:
        """Make the folder if need be; CacheError if nothing can be written there."""
        probe = self.folder / (draw_shard_name() + TEMPORARY)
        try:
            self.folder.mkdir(parents=True, exist_ok=True)
            probe.touch()
            probe.unlink()
        except OSError as error:
            raise build_error(self.folder, "written", error=error) from error

    def publish(self, samples: Mapping[str, Sample]) -> None:
        """Write contiguous CPU tensors as one new shard, whole or not at all, and take it into the index."""
        path = self.folder / draw_shard_name()
        temporary = path.with_name(path.name + TEMPORARY)
        try:
            write_shard(temporary, samples)
            temporary.replace(path)
            _sync_folder(self.folder)
        except OSError as error:
            raise build_error(self.folder, "written", error=error) from error
        finally:
            with suppress(OSError):
                temporary.unlink(missing_ok=True)
        self.catalog.open(path.name)

    def verify(self, *, progress: Progress = ignore_progress) -> VerifyReport:
        """Read every byte of every shard; what does not match its checksum is set aside."""
        self.refresh()
        shards = self.catalog.list_shards()
        for done, shard in enumerate(shards):
            progress("checking the cache", done, len(shards))
            with suppress(FileNotFoundError):  # collected meanwhile by another process
                data = self._map(shard)
                for key in list(shard.samples):
                    self._check(shard, key, data)
        progress("checking the cache", len(shards), len(shards))
        return VerifyReport(
            num_shards=len(shards),
            num_samples=len(self),
            num_bytes=sum(shard.num_bytes for shard in shards),
            set_aside=tuple(self.set_aside),
            damaged_files=tuple(list_files(self.folder, DAMAGED)),
            temporary_files=tuple(list_files(self.folder, TEMPORARY)),
        )

    def weigh(self, keep: Set[str]) -> CollectReport:
        """What `collect` would do, but for a few bytes of headers; nothing is changed. Damage that is not known yet counts as good."""
        self.refresh()
        freed_bytes = sum(path.stat().st_size for path in _list_rubbish(self.folder))
        samples = self.catalog.read_all()
        for shard in self.catalog.list_shards():
            unwanted = [sample for key, sample in shard.samples.items() if key not in keep or samples[key] is not shard]
            is_whole = len(unwanted) == len(shard.samples)
            freed_bytes += shard.num_bytes if is_whole else sum(entry.num_bytes for sample in unwanted for entry in sample)
        num_kept = sum(key in keep for key in samples)
        return CollectReport(num_kept, len(self) - num_kept, freed_bytes, ())

    def collect(self, keep: Set[str], *, progress: Progress = ignore_progress) -> CollectReport:
        """Keep one good copy of each sample in `keep` and delete all else: samples, damaged files, stale temporary files.

        A sample is written to a new shard before its old one is deleted, so a kill loses nothing.
        """
        self.refresh()
        num_before, bytes_before = len(self), _count_bytes(self.folder)
        shards = self.catalog.list_shards()
        pending: dict[str, Sample] = {}
        pending_bytes = 0
        replaced: list[Path] = []
        left: list[Path] = []
        for done, shard in enumerate(shards):
            progress("cleaning the cache", done, len(shards))
            wanted = [key for key in shard.samples if key in keep and self.catalog.find(key) is shard]
            if len(wanted) < shard.num_written:
                good = self._read_good(shard, wanted)
                pending.update(good)
                pending_bytes += sum(tensor.nbytes for sample in good.values() for tensor in sample.values())
                replaced.append(shard.path)
                good = {}
            if pending_bytes >= MAX_SHARD_BYTES or len(replaced) >= _MAX_MAPPED or done == len(shards) - 1:
                if pending:
                    self.publish(pending)
                pending, pending_bytes = {}, 0  # lets go of the maps: Windows deletes no mapped file
                self._forget([path.name for path in replaced])
                left += _delete(replaced)
                replaced = []
        left += _delete([*_list_rubbish(self.folder), self.folder / NOTES_NAME])
        self.catalog.keep_index()
        progress("cleaning the cache", len(shards), len(shards))
        return CollectReport(len(self), num_before - len(self), bytes_before - _count_bytes(self.folder), tuple(left))

    def _map(self, shard: Shard) -> Data:
        data = self._mapped.get(shard.name)
        if data is None:
            try:
                data = shard.load()
            except FileNotFoundError:
                raise
            except OSError as error:
                raise build_error(shard.path, "read", error=error) from error
            if len(self._mapped) >= _MAX_MAPPED:
                del self._mapped[next(iter(self._mapped))]
            self._mapped[shard.name] = data
        return data

    def _check(self, shard: Shard, key: str, data: Data) -> bool:
        reason = shard.check(key, data)
        if reason is not None:
            self.catalog.drop(shard, key, reason=reason)
        return reason is None

    def _read_good(self, shard: Shard, keys: Iterable[str]) -> dict[str, Sample]:
        try:
            data = self._map(shard)
        except FileNotFoundError:  # another process collects too
            return {}
        return {key: shard.read(key, data) for key in keys if self._check(shard, key, data)}

    def _forget(self, names: Iterable[str]) -> None:
        gone = set(names)
        self.catalog.forget(gone)
        for name in gone & self._mapped.keys():
            del self._mapped[name]


def find_files(folder: Path, keys: Set[str]) -> list[Path]:
    """The shards in a folder that hold some of these samples."""
    found = []
    for file in list_files(folder, ""):
        with suppress(OSError, DamagedShardError):  # none that anything is read from
            if keys & load_shard(file).samples.keys():
                found.append(file)
    return found


def _list_rubbish(folder: Path) -> list[Path]:
    return [*list_files(folder, DAMAGED), *filter(is_abandoned, list_files(folder, TEMPORARY))]


def _count_bytes(folder: Path) -> int:
    return sum(sum(measure_files(folder, suffix).values()) for suffix in ("", DAMAGED, TEMPORARY))


def _delete(paths: Iterable[Path]) -> list[Path]:
    left = []
    for path in paths:
        try:
            path.unlink(missing_ok=True)
        except OSError:
            left.append(path)
    return left


def _sync_folder(folder: Path) -> None:
    """Make the rename itself survive a power cut. Windows has no such call, some network folders refuse it."""
    if os.name == "posix":
        descriptor = os.open(folder, os.O_RDONLY)
        try:
            with suppress(OSError):
                os.fsync(descriptor)
        finally:
            os.close(descriptor)
