"""One file of encoded tensors: plain safetensors whose header is the index, guarded by checksums.

The tensors are named `<key>/<name>`. The header's metadata starts with a crc32 of all of the header that follows it (and of its
length), then holds a crc32 of the bytes of each tensor, in the order of the header. So every flipped bit is found: in the index
when the file is opened, in a tensor when it is read first. Format: https://huggingface.co/docs/safetensors
"""

from __future__ import annotations

import json
import math
import mmap
import os
import warnings
import zlib
from collections.abc import Mapping
from functools import lru_cache
from pathlib import Path
from typing import NamedTuple

import torch
from torch import Tensor

from weber.families.tensors import DTYPES, LENGTH_BYTES, read_header

_NAMES = {dtype: name for name, dtype in DTYPES.items()}
_START = b'{"__metadata__":{"index":"'
_ALIGNMENT_BYTES = 64  # a cache line: the copy out of the map is a few percent faster

Sample = Mapping[str, Tensor]
Data = Mapping[torch.dtype, Tensor]
"""A whole file, read-only, as one flat tensor per dtype."""


class DamagedShardError(Exception):
    """A shard whose header or length is not what was written. Never shown: the store sets the shard aside."""


class Entry(NamedTuple):
    """Where one tensor of a sample lies in the file; `offset` counts elements from the start of the file."""

    name: str
    dtype: torch.dtype
    shape: tuple[int, ...]
    stride: tuple[int, ...]
    offset: int
    checksum: int

    @property
    def num_bytes(self) -> int:
        """Bytes in the file."""
        return math.prod(self.shape) * self.dtype.itemsize


class Shard:
    """An opened shard: its index in memory, its tensors still on disk."""

    def __init__(self, path: Path, samples: dict[str, list[Entry]], *, num_bytes: int) -> None:
        self.path, self.name, self.samples, self.num_bytes = path, path.name, samples, num_bytes
        self.num_written = len(samples)
        self.checked: set[str] = set()

    def load(self) -> Data:
        """Map the file into memory; the map lives as long as a view of it does."""
        with self.path.open("rb") as file:
            mapped = mmap.mmap(file.fileno(), 0, access=mmap.ACCESS_READ)
        with warnings.catch_warnings():
            warnings.filterwarnings("ignore", message="The given buffer is not writable")
            whole = torch.frombuffer(mapped, dtype=torch.uint8)
        return {dtype: whole[: len(whole) // dtype.itemsize * dtype.itemsize].view(dtype) for dtype in DTYPES.values()}

    def check(self, key: str, data: Data) -> str | None:
        """Compare the bytes of a sample with their checksums; the reason if one differs."""
        for entry, tensor in zip(self.samples[key], self.read(key, data).values(), strict=True):
            if zlib.crc32(_view_bytes(tensor)) != entry.checksum:
                return f"the bytes of {key}/{entry.name} do not match their checksum"
        self.checked.add(key)
        return None

    def read(self, key: str, data: Data) -> dict[str, Tensor]:
        """The tensors of a sample, as views of `data`. (Slicing and reshaping would take three times as long.)"""
        return {name: data[dtype].as_strided(shape, stride, offset) for name, dtype, shape, stride, offset, _ in self.samples[key]}


def load_shard(path: Path) -> Shard:
    """Read the index of a shard; nothing but the header is read. DamagedShardError if it is not as it was written."""
    header, num_bytes = read_header(path)
    if header is None:
        raise DamagedShardError("the file ends before its header does")
    length = len(header).to_bytes(LENGTH_BYTES, "little")
    checksum_end = len(_START) + 8
    if header[:checksum_end] != _START + _checksum(length + header[checksum_end:]):
        raise DamagedShardError("the header does not match its checksum")
    data_start = LENGTH_BYTES + len(header)
    tensors = json.loads(header)
    checksums = tensors.pop("__metadata__")["tensors"]
    samples: dict[str, list[Entry]] = {}
    end = 0
    for index, (full_name, row) in enumerate(tensors.items()):
        key, _, name = full_name.partition("/")
        start, end = row["data_offsets"]
        dtype, shape = DTYPES[row["dtype"]], tuple(row["shape"])
        checksum = int(checksums[8 * index : 8 * index + 8], 16)
        entry = Entry(name, dtype, shape, _build_stride(shape), (data_start + start) // dtype.itemsize, checksum)
        samples.setdefault(key, []).append(entry)
    if num_bytes != data_start + end:
        raise DamagedShardError(f"the file has {num_bytes} bytes instead of {data_start + end}")
    return Shard(path, samples, num_bytes=num_bytes)


def write_shard(path: Path, samples: Mapping[str, Sample]) -> None:
    """Write a new file with these samples (contiguous CPU tensors) and wait until it is on the disk. OSError as it comes."""
    tensors = [(f"{key}/{name}", tensor) for key, sample in samples.items() for name, tensor in sample.items()]
    tensors.sort(key=lambda item: -item[1].element_size())  # so that each starts at a multiple of its element size
    rows: dict[str, object] = {}
    checksums = []
    start = 0
    for full_name, tensor in tensors:
        end = start + tensor.nbytes
        rows[full_name] = {"dtype": _NAMES[tensor.dtype], "shape": list(tensor.shape), "data_offsets": [start, end]}
        checksums.append(_checksum(_view_bytes(tensor)))
        start = end
    rest = b'","tensors":"' + b"".join(checksums) + b'"},' + json.dumps(rows, separators=(",", ":")).encode()[1:]
    rest += b" " * (-(LENGTH_BYTES + len(_START) + 8 + len(rest)) % _ALIGNMENT_BYTES)
    length = (len(_START) + 8 + len(rest)).to_bytes(LENGTH_BYTES, "little")
    with path.open("xb") as file:
        file.write(length + _START + _checksum(length + rest) + rest)
        for _, tensor in tensors:
            file.write(_view_bytes(tensor))
        file.flush()
        os.fsync(file.fileno())


@lru_cache
def _build_stride(shape: tuple[int, ...]) -> tuple[int, ...]:
    return torch.empty(shape, device="meta").stride()


def _view_bytes(tensor: Tensor) -> memoryview:
    return tensor.reshape(-1).view(torch.uint8).numpy().data


def _checksum(data: bytes | memoryview) -> bytes:
    return b"%08x" % zlib.crc32(data)
