"""What became of a set, kept beside the index as columns: as long as nothing has changed it is opened, and no picture is asked for.

The columns lie under a name made of the set's settings, and carry a fingerprint of all that they are made of: the files of its folders with
their stats, what caption files and the table hold, the settings and the code that made them.
"""

from __future__ import annotations

import json
from collections.abc import Container, Iterable, Iterator, Mapping
from concurrent.futures import ThreadPoolExecutor
from contextlib import suppress
from functools import cache, partial
from hashlib import blake2b
from pathlib import Path

from weber.config.data import DataConfig
from weber.data.backends.backend import Backend, FileStat
from weber.data.columns import Columns, build_columns, read_columns, write_columns
from weber.data.found import Found
from weber.errors import DataError

FOLDER_NAME = "columns"
_NUM_PER_JOB = 1024
_NUM_THREADS = 16


class Known:
    """The place for the columns of one set. `about` is everything beside its own settings and files that they depend on."""

    def __init__(self, folder: Path, config: DataConfig, *, about: Mapping[str, object], backend: Backend) -> None:
        self._settings = json.dumps([_identify_code(), config.model_dump(mode="json"), about], sort_keys=True, default=str)
        self.file = folder / f"{_hash(self._settings)}.columns"
        self._backend = backend

    def open(self, fingerprint: str) -> Columns | None:
        """The columns that were kept; None if there are none, or if they were made of something else."""
        with suppress(OSError):
            columns = read_columns(self.file)
            if columns is not None and columns.facts["fingerprint"] == fingerprint and self._is_unchanged(columns.facts["asked"]):
                return columns
        return None

    def keep(self, columns: Columns, fingerprint: str, *, asked: Mapping[str, FileStat]) -> Columns:
        """Columns with a fingerprint, and with the stats of files that no folder has; written down where that is possible."""
        kept = build_columns(columns.arrays, {**columns.facts, "fingerprint": fingerprint, "asked": asked})
        with suppress(OSError):  # Windows replaces no file that another process has mapped; a full disk is the cache's to refuse
            write_columns(self.file, kept)
            return read_columns(self.file) or kept
        return kept

    def build_fingerprint(self, found: Found, *, captions: Mapping[str, bytes | DataError], others: Iterable[Path]) -> str:
        """What the columns of these files, captions and `others`, which are read whole, are known by."""
        digest = blake2b(self._settings.encode(), digest_size=16)
        for listing in found.listings:
            digest.update(f"\0folder {listing.folder} {len(listing.names)}\0".encode(errors="surrogatepass"))
            for text in _join(f"{name}\0{stat}" for name, stat in zip(listing.names, listing.stats, strict=True)):
                digest.update(text)
        for text in _join(f"{name}\0{data!r}" if isinstance(data, bytes) else f"{name}\0{data.what}" for name, data in captions.items()):
            digest.update(text)
        digest.update(repr(found.own).encode(errors="surrogatepass"))
        for path in others:
            digest.update(f"\0file {path}\0".encode(errors="surrogatepass") + self._read(path))
        return digest.hexdigest()

    def _read(self, path: Path) -> bytes:
        try:
            return self._backend.read(path)
        except DataError as error:  # said where it is needed
            return error.what.encode(errors="surrogatepass")

    def _is_unchanged(self, asked: Mapping[str, list[object]]) -> bool:
        paths = list(asked)
        portions = [paths[start : start + _NUM_PER_JOB] for start in range(0, len(paths), _NUM_PER_JOB)]
        with ThreadPoolExecutor(_NUM_THREADS) as pool:
            return all(pool.map(partial(self._are_unchanged, asked), portions))

    def _are_unchanged(self, asked: Mapping[str, list[object]], paths: Iterable[str]) -> bool:
        try:
            return all(self._backend.stat(Path(path)) == tuple(asked[path]) for path in paths)
        except DataError:
            return False


def collect_columns(folder: Path, keep: Container[Path], *, is_dry: bool) -> tuple[int, int]:
    """Delete the columns of sets that nobody needs any longer, or with `is_dry` only count them: how many, and their bytes."""
    unused = [file for file in folder.glob("*.columns*") if file not in keep]
    num_bytes = sum(file.stat().st_size for file in unused)
    for file in unused if not is_dry else ():
        with suppress(OSError):  # Windows deletes nothing that another process has mapped
            file.unlink()
    return len(unused), num_bytes


def _join(texts: Iterable[str]) -> Iterator[bytes]:
    """Many texts as few, so that each is not hashed for itself."""
    pending: list[str] = []
    for text in texts:
        pending.append(text)
        if len(pending) == _NUM_PER_JOB:
            yield "\0\0".join(pending).encode(errors="surrogatepass")
            pending = []
    yield "\0\0".join(pending).encode(errors="surrogatepass")


@cache
def _identify_code() -> str:
    """Of everything that makes pictures of files: what other code has made is made anew."""
    room = Path(__file__).parent
    files = [*sorted(room.rglob("*.py")), *sorted((room.parent / "config").glob("*.py"))]
    return _hash("".join(file.read_text(encoding="utf-8") for file in files))


def _hash(text: str) -> str:
    return blake2b(text.encode(errors="surrogatepass"), digest_size=16).hexdigest()
