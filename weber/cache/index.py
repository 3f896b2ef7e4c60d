"""Which shard holds which sample, as one file beside the shards, so that a store of a million samples is opened without reading a header.

The file is a memory of the shards' headers and no more: without it, or with a damaged one, the headers are read. Layout, little-endian:
a word that names the format and a crc32 of all that follows; the length of a JSON list of shards, each `[name, bytes]`, and the list;
for each two bytes, how many keys start with them or with less (65,536 numbers of 4 bytes), as in git's pack index; the keys in order, 16
bytes each; for each key the position of its shard in the list (4 bytes). A key that several shards hold is there several times.
"""

from __future__ import annotations

import json
import mmap
import zlib
from collections.abc import Iterable, Iterator, Mapping
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from weber.cache.key import KEY_BYTES, Keys
from weber.data.columns import map_file

_START = b"weber cache index 1\n"
_CHECKSUM_BYTES = 4
_LENGTH_BYTES = 4
_NUM_PREFIXES = 2**16


class Index:
    """An opened index: `sizes` holds the bytes of each of its shards; everything else stays in the file, mapped."""

    def __init__(self, data: mmap.mmap | bytes) -> None:
        self._data = data
        start = len(_START) + _CHECKSUM_BYTES
        end = start + _LENGTH_BYTES + int.from_bytes(data[start : start + _LENGTH_BYTES], "little")
        self.sizes: dict[str, int] = dict(json.loads(data[start + _LENGTH_BYTES : end]))
        self._names = list(self.sizes)
        self._ends = np.frombuffer(data, "<u4", _NUM_PREFIXES, end).tolist()
        self._keys_start = end + 4 * _NUM_PREFIXES
        self._shards_start = self._keys_start + KEY_BYTES * len(self)

    def __len__(self) -> int:
        return int(self._ends[-1])

    def find(self, key: str) -> Iterator[str]:
        """The names of the shards that hold a sample."""
        if not is_indexed(key):
            return
        word = bytes.fromhex(key)
        prefix = int.from_bytes(word[:2], "big")
        first, last = self._ends[prefix - 1] if prefix else 0, self._ends[prefix]
        keys = self._data[self._keys_start + KEY_BYTES * first : self._keys_start + KEY_BYTES * last]
        place = keys.find(word)
        while place >= 0:
            row, beside = divmod(place, KEY_BYTES)
            if not beside:
                start = self._shards_start + 4 * (first + row)
                yield self._names[int.from_bytes(self._data[start : start + 4], "little")]
            place = keys.find(word, place + 1)

    def find_all(self, keys: Keys) -> NDArray[np.int64]:
        """Of many keys (N, 16) the position in `sizes` of a shard that holds each; -1 where none does."""
        known, places = self.list_keys()
        if not len(known):
            return np.full(len(keys), -1)
        first, second = (np.ascontiguousarray(known.view(">u8")[:, half]).astype(np.uint64) for half in (0, 1))
        wanted = np.ascontiguousarray(keys).view(">u8").astype(np.uint64)
        rows = np.minimum(np.searchsorted(first, wanted[:, 0]), len(first) - 1)
        # two keys of the same first half are as unlikely as two contents of the same name
        return np.where((first[rows] == wanted[:, 0]) & (second[rows] == wanted[:, 1]), places[rows].astype(np.int64), -1)

    def list_keys(self) -> tuple[np.ndarray, np.ndarray]:
        """All keys as (N, 16) bytes and the (N,) positions of their shards in `sizes`."""
        keys = np.frombuffer(self._data, np.uint8, KEY_BYTES * len(self), self._keys_start)
        return keys.reshape(-1, KEY_BYTES), np.frombuffer(self._data, "<u4", len(self), self._shards_start)


def is_indexed(key: str) -> bool:
    """Whether a key can be in an index: 32 small hex digits."""
    return len(key) == 2 * KEY_BYTES and not key.strip("0123456789abcdef")


def read_index(file: Path) -> Index | None:
    """Map an index; None if there is none, or if it isn't what was written. OSError as it comes."""
    data = map_file(file)
    if data is None:
        return None
    start = len(_START) + _CHECKSUM_BYTES
    with memoryview(data) as view:
        checksum = zlib.crc32(view[start:]).to_bytes(_CHECKSUM_BYTES, "little")
    return Index(data) if data[:start] == _START + checksum else None


def write_index(file: Path, shards: Mapping[str, tuple[int, Iterable[str]]], *, known: Index | None, keep: Iterable[str]) -> None:
    """Write a new file: the bytes and keys of these shards, and what `known` has of the shards `keep`. OSError as it comes."""
    sizes = {name: known.sizes[name] for name in keep} if known else {}
    keys, places = [np.zeros((0, KEY_BYTES), np.uint8)], [np.zeros(0, np.uint32)]
    if known and sizes:
        positions = {name: position for position, name in enumerate(sizes)}
        moved = np.array([positions.get(name, -1) for name in known.sizes], np.int64)
        rows, shard_rows = known.list_keys()
        stays = moved[shard_rows] >= 0
        keys.append(rows[stays])
        places.append(moved[shard_rows][stays].astype(np.uint32))
    for name, (num_bytes, names) in shards.items():
        rows = np.frombuffer(bytes.fromhex("".join(names)), np.uint8).reshape(-1, KEY_BYTES)
        keys.append(rows)
        places.append(np.full(len(rows), len(sizes), np.uint32))
        sizes[name] = num_bytes
    all_keys, all_places = np.concatenate(keys), np.concatenate(places)
    halves = all_keys.view(">u8")
    order = np.lexsort((all_places, halves[:, 1], halves[:, 0]))
    all_keys, all_places = all_keys[order], all_places[order]
    prefixes = all_keys[:, 0].astype(np.int64) << 8 | all_keys[:, 1]
    ends = np.cumsum(np.bincount(prefixes, minlength=_NUM_PREFIXES)).astype("<u4")
    listed = json.dumps(list(sizes.items()), separators=(",", ":")).encode()
    parts = [len(listed).to_bytes(_LENGTH_BYTES, "little"), listed, ends.tobytes(), all_keys.tobytes(), all_places.astype("<u4").tobytes()]
    checksum = 0
    for part in parts:
        checksum = zlib.crc32(part, checksum)
    with file.open("xb") as stream:
        for part in [_START, checksum.to_bytes(_CHECKSUM_BYTES, "little"), *parts]:
            stream.write(part)
