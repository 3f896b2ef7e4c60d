"""Identity of files of weights, from their headers and a sample of their bytes: 10 GB in milliseconds."""

from __future__ import annotations

import hashlib
from collections.abc import Iterable, Sequence
from pathlib import Path

NUM_PROBES = 256
PROBE_BYTES = 4096
_SMALL = (".json", ".txt", ".model", ".jinja")


def build_identity(folder: Path, weights: Sequence[Path], *, extra: Iterable[str] = ()) -> str:
    """Identity of a part: 128-bit hash, as hex, of the small files that lie in its folder and of a sample of its weights (a tokenizer has
    none). What else the folder holds, such as further models in subfolders, does not count.

    Of each file of weights: size, header and 256 evenly spread pieces of 4 KiB; a fine-tuned encoder differs in nearly every piece.
    `extra` are further facts that the result depends on.
    """
    digest = _start(extra)
    small = [file for file in folder.iterdir() if file.suffix in _SMALL and file.is_file()]
    for file in sorted([*weights, *small]):
        if file in weights:
            _hash_sample(file, digest)
        else:
            digest.update(file.name.encode() + b"\0" + file.read_bytes())
    return digest.hexdigest()


def build_file_identity(files: Sequence[Path], *, extra: Iterable[str] = ()) -> str:
    """The same of single files, whatever their names."""
    digest = _start(extra)
    for file in files:
        _hash_sample(file, digest)
    return digest.hexdigest()


def _start(extra: Iterable[str]) -> hashlib.blake2b:
    digest = hashlib.blake2b(digest_size=16)
    for fact in extra:
        digest.update(fact.encode() + b"\0")
    return digest


def _hash_sample(file: Path, digest: hashlib.blake2b) -> None:
    size = file.stat().st_size
    with file.open("rb") as stream:
        header_bytes = max(0, min(int.from_bytes(stream.read(8), "little"), size - 8))
        digest.update(size.to_bytes(8, "little") + stream.read(header_bytes))
        for probe in range(NUM_PROBES):
            stream.seek(8 + header_bytes + max(0, size - 8 - header_bytes) * probe // NUM_PROBES)
            digest.update(stream.read(PROBE_BYTES))
