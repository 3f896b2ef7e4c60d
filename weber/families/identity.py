"""Identity of files of weights, from their headers and a sample of their bytes: 10 GB in milliseconds."""

from __future__ import annotations

import hashlib
import time
from collections.abc import Container, Iterable, Sequence
from pathlib import Path

NUM_PROBES = 256
PROBE_BYTES = 4096
_SMALL = (".json", ".txt", ".model", ".jinja")
_SETTLED_NS = 2 * 10**9
"""Files that have changed within this time are read each time: they may change again without another date, as in git's index."""

_KNOWN: dict[object, str] = {}
"""What was found in this process, by the files and their dates: a run asks for each of its parts about ten times."""


def build_identity(folder: Path, weights: Sequence[Path], *, extra: Iterable[str] = ()) -> str:
    """Identity of a part: 128-bit hash, as hex, of the small files that lie in its folder and of a sample of its weights (a tokenizer has
    none). What else the folder holds, such as further models in subfolders, does not count.

    Of each file of weights: size, header and 256 evenly spread pieces of 4 KiB; a fine-tuned encoder differs in nearly every piece.
    `extra` are further facts that the result depends on.
    """
    small = [file for file in folder.iterdir() if file.suffix in _SMALL and file.is_file()]
    return _identify(sorted([*weights, *small]), set(weights), tuple(extra))


def build_file_identity(files: Sequence[Path], *, extra: Iterable[str] = ()) -> str:
    """The same of single files, whatever their names."""
    return _identify(files, set(files), tuple(extra))


def _identify(files: Sequence[Path], weights: Container[Path], extra: Sequence[str]) -> str:
    now, states = time.time_ns(), [file.stat() for file in files]
    dates = tuple((one.st_dev, one.st_ino, one.st_size, one.st_mtime_ns, one.st_ctime_ns) for one in states)
    key = tuple((file, file in weights) for file in files), dates, extra
    if key not in _KNOWN:
        found = _read(files, weights, extra)
        if any(max(one.st_mtime_ns, one.st_ctime_ns) > now - _SETTLED_NS for one in states):
            return found
        _KNOWN[key] = found
    return _KNOWN[key]


def _read(files: Sequence[Path], weights: Container[Path], extra: Iterable[str]) -> str:
    digest = hashlib.blake2b(digest_size=16)
    for fact in extra:
        digest.update(fact.encode() + b"\0")
    for file in files:
        if file in weights:
            _hash_sample(file, digest)
        else:
            digest.update(file.name.encode() + b"\0" + file.read_bytes())
    return digest.hexdigest()


def _hash_sample(file: Path, digest: hashlib.blake2b) -> None:
    size = file.stat().st_size
    with file.open("rb") as stream:
        header_bytes = max(0, min(int.from_bytes(stream.read(8), "little"), size - 8))
        digest.update(size.to_bytes(8, "little") + stream.read(header_bytes))
        for probe in range(NUM_PROBES):
            stream.seek(8 + header_bytes + max(0, size - 8 - header_bytes) * probe // NUM_PROBES)
            digest.update(stream.read(PROBE_BYTES))
