"""Many rows as columns in one file: numbers in arrays that are mapped and texts in one blob, so that millions are opened at once and only
what is asked for is read.

Layout, little-endian: a word that names the format; the length of a JSON table and a crc32 of it; the table, which has of each array its
dtype, shape and place in the file, and whatever its writer wanted to keep; the arrays, each at a multiple of 64 bytes.
"""

from __future__ import annotations

import json
import math
import mmap
import zlib
from array import array
from collections.abc import Iterator, Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any, overload
from uuid import uuid4

import numpy as np
from numpy.typing import NDArray

Array = NDArray[Any]

_START = b"weber columns 1\n"
_HEADER_BYTES = len(_START) + 8
_ALIGNMENT = 64
_ENDS, _BLOB = ".ends", ".text"


class Texts(Sequence[str]):
    """Texts in one blob of UTF-8, each decoded when it is asked for."""

    def __init__(self, blob: Array, ends: Array) -> None:
        self._blob, self._ends = blob, ends

    def __len__(self) -> int:
        return len(self._ends)

    @overload
    def __getitem__(self, place: int) -> str: ...
    @overload
    def __getitem__(self, place: slice) -> list[str]: ...
    def __getitem__(self, place: int | slice) -> str | list[str]:
        if isinstance(place, slice):
            return list(self.walk(*place.indices(len(self))[:2]))
        start, end = find_span(self._ends, place)
        return _decode(self._blob[start:end].tobytes())

    def __iter__(self) -> Iterator[str]:
        return self.walk(0, len(self))

    def walk(self, start: int, stop: int) -> Iterator[str]:
        """The texts from number `start` to before `stop`, in order; much quicker than one by one."""
        first = 0 if start == 0 else int(self._ends[start - 1])
        for low in range(start, stop, 4096):
            ends = self._ends[low : min(stop, low + 4096)].tolist()
            data, offset = self._blob[first : ends[-1]].tobytes(), first
            for end in ends:
                yield _decode(data[first - offset : end - offset])
                first = end


@dataclass(frozen=True)
class Columns:
    """Arrays and texts by name, and the `facts` that were kept with them."""

    arrays: Mapping[str, Array]
    facts: Mapping[str, Any]

    def __contains__(self, name: object) -> bool:
        return name in self.arrays or f"{name}{_ENDS}" in self.arrays

    def read_texts(self, name: str) -> Texts:
        """A column of texts."""
        return Texts(self.arrays[name + _BLOB], self.arrays[name + _ENDS])


def find_span(ends: Array, place: int) -> tuple[int, int]:
    """Where a row's part of another column starts and stops, by the `ends` of the rows' parts."""
    if not 0 <= place < len(ends):
        raise IndexError(place)
    return int(ends[place - 1]) if place else 0, int(ends[place])


class TextPacker:
    """A column of texts that is being written."""

    def __init__(self) -> None:
        self._blob, self._ends = bytearray(), array("q")

    def add(self, text: str) -> None:
        """One more row."""
        self._blob += _encode(text)
        self._ends.append(len(self._blob))

    def __len__(self) -> int:
        return len(self._ends)

    def build(self, name: str) -> dict[str, Array]:
        """Its arrays."""
        return {name + _BLOB: np.frombuffer(self._blob, np.uint8), name + _ENDS: np.frombuffer(self._ends, np.int64)}


def build_columns(arrays: Mapping[str, Array], facts: Mapping[str, Any]) -> Columns:
    """Columns in memory, as `read_columns` would find them: `facts` as JSON keeps them."""
    return Columns(dict(arrays), json.loads(json.dumps(facts)))


def write_columns(file: Path, columns: Columns) -> None:
    """Write a file, whole or not at all. OSError as it comes."""
    table, place = {}, 0
    for name, column in columns.arrays.items():
        table[name] = [column.dtype.str, column.shape, place]
        place += -(-column.nbytes // _ALIGNMENT) * _ALIGNMENT
    listed = json.dumps({"arrays": table, "facts": columns.facts}, separators=(",", ":")).encode()
    file.parent.mkdir(parents=True, exist_ok=True)
    temporary = file.with_name(f"{file.name}.{uuid4().hex}.tmp")
    try:
        with temporary.open("xb") as stream:
            stream.write(_START + len(listed).to_bytes(4, "little") + zlib.crc32(listed).to_bytes(4, "little") + listed)
            for column in columns.arrays.values():
                stream.write(bytes(-stream.tell() % _ALIGNMENT))
                stream.write(np.ascontiguousarray(column).data)
            stream.truncate(_find_first(len(listed)) + place)
        temporary.replace(file)
    finally:
        with suppress(OSError):
            temporary.unlink(missing_ok=True)


def read_columns(file: Path) -> Columns | None:
    """Map a file; None if there is none, or if it isn't what was written. OSError as it comes."""
    data = map_file(file)
    if data is None:
        return None
    size, checksum = (int.from_bytes(data[start : start + 4], "little") for start in (len(_START), len(_START) + 4))
    listed = data[_HEADER_BYTES : _HEADER_BYTES + size]
    if data[: len(_START)] != _START or zlib.crc32(listed) != checksum:
        return None
    header, first = json.loads(listed), _find_first(size)
    arrays = {}
    for name, (dtype, shape, place) in header["arrays"].items():
        number = math.prod(shape)
        if first + place + number * np.dtype(dtype).itemsize > len(data):
            return None
        arrays[name] = np.frombuffer(data, dtype, number, first + place).reshape(shape) if number else np.empty(shape, dtype)
    return Columns(arrays, header["facts"])


def map_file(file: Path) -> mmap.mmap | None:
    """A file as memory that is read when it is looked at; None if there is none, or nothing in it. OSError as it comes."""
    try:
        with file.open("rb") as stream:
            return mmap.mmap(stream.fileno(), 0, access=mmap.ACCESS_READ)
    except (FileNotFoundError, ValueError):  # ValueError: an empty file cannot be mapped
        return None


def _find_first(num_listed: int) -> int:
    """Where the first array starts."""
    return -(-(_HEADER_BYTES + num_listed) // _ALIGNMENT) * _ALIGNMENT


# names of files may hold what is no Unicode
def _encode(text: str) -> bytes:
    return text.encode(errors="surrogatepass")


def _decode(data: bytes) -> str:
    return data.decode(errors="surrogatepass")
