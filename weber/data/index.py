"""What is known about files, so that at the next start only new and changed ones are opened."""

from __future__ import annotations

import sqlite3
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import closing, suppress
from dataclasses import astuple, dataclass
from functools import partial
from pathlib import Path
from typing import TypeVar

from weber.data.backends.backend import Backend, FileStat
from weber.errors import DataError, MissingExtraError

# The number goes up when a row of an older weber would say something else than today's code.
_CREATE = """CREATE TABLE IF NOT EXISTS files_2 (path TEXT PRIMARY KEY, size_bytes INTEGER, mtime_ns INTEGER, mark TEXT,
    content TEXT, width INTEGER, height INTEGER, text TEXT, reason TEXT, form TEXT, problem TEXT, share REAL) WITHOUT ROWID"""
_NUM_PER_PORTION = 64  # a kill loses the work of one portion
_LOCK_SECONDS = 60.0

_T = TypeVar("_T")


@dataclass(frozen=True, slots=True)
class FileFacts:
    """What opening a picture or a mask taught; or the `reason` why it is unusable.

    `text` is more of a mask, and `share` how much of it is white. `form`: how the file is read, where that is not as it is; `problem`:
    what a person should know of it, as `kind: details`.
    """

    content: str = ""
    width: int = 0
    height: int = 0
    text: str = ""
    reason: str = ""
    form: str = ""
    problem: str = ""
    share: float = 1.0


_Known = dict[str, tuple[FileStat, FileFacts]]


class Index:
    """One sqlite file of facts by absolute path and stat. Several processes may use it at once.

    A damaged file is set aside as `<name>.damaged` and made anew. Raises DataError where it cannot be read or written at all.
    """

    def __init__(self, path: Path, *, backend: Backend) -> None:
        self._path, self._backend = path, backend
        self.num_opened = 0
        """How many files had to be opened so far."""

    def read_facts(
        self, paths: Sequence[Path], inspect: Callable[[bytes], FileFacts], *, report: Callable[[int, int], None], kind: str = ""
    ) -> list[FileFacts]:
        """Facts of each absolute path, in order. `inspect` opens what is new; a DataError of it is remembered as the reason.

        `report` is called with the number of files done and in all. Facts of one `kind` are not those of another.
        """
        found: list[FileFacts] = []
        with ThreadPoolExecutor() as pool:
            for start in range(0, len(paths), _NUM_PER_PORTION):
                portion = paths[start : start + _NUM_PER_PORTION]
                names = [f"{kind}{path}" for path in portion]
                known = self._transact(partial(_select, names=names))
                looks = list(pool.map(partial(self._look, inspect), portion, [known.get(name) for name in names]))
                new = [(name, stat, facts) for name, (stat, facts) in zip(names, looks, strict=True) if stat is not None]
                if new:
                    self.num_opened += len(new)
                    self._transact(partial(_insert, new=new))
                found += [facts for _, facts in looks]
                report(len(found), len(paths))
        return found

    def _look(
        self, inspect: Callable[[bytes], FileFacts], path: Path, known: tuple[FileStat, FileFacts] | None
    ) -> tuple[FileStat | None, FileFacts]:
        """Facts of one file, and its stat if it was opened."""
        try:
            stat = self._backend.stat(path)
            if known is not None and known[0] == stat:
                return None, known[1]
            data = self._backend.read(path)
        except DataError as error:  # not remembered: permissions and disks heal without a change of the file
            return None, FileFacts(reason=error.what)
        try:
            return stat, inspect(data)
        except DataError as error:
            return stat, FileFacts(reason=error.what)
        except MissingExtraError as error:  # not remembered either: packages are installed without a change of the file
            return None, FileFacts(reason=error.what)

    def _transact(self, work: Callable[[sqlite3.Connection], _T]) -> _T:
        try:
            try:
                return self._attempt(work)
            except sqlite3.DatabaseError as error:
                if isinstance(error, sqlite3.OperationalError):  # locked, full, read-only: not damage
                    raise
                self._set_aside()
                return self._attempt(work)
        except (sqlite3.Error, OSError) as error:
            raise DataError(
                f'the index "{self._path}" cannot be used',
                got=str(error),
                fix="check the disk's space and permissions, or delete the file; it is made anew",
            ) from error

    def _attempt(self, work: Callable[[sqlite3.Connection], _T]) -> _T:
        self._path.parent.mkdir(parents=True, exist_ok=True)
        with closing(sqlite3.connect(self._path, timeout=_LOCK_SECONDS)) as connection, connection:
            connection.execute(_CREATE)
            return work(connection)

    def _set_aside(self) -> None:
        # without its journal, which sqlite would apply to the new file
        self._path.with_name(self._path.name + "-journal").unlink(missing_ok=True)
        with suppress(FileNotFoundError):  # another process was first
            self._path.replace(self._path.with_name(self._path.name + ".damaged"))


def _select(connection: sqlite3.Connection, names: Sequence[str]) -> _Known:
    marks = ", ".join("?" * len(names))
    rows = connection.execute(f"SELECT * FROM files_2 WHERE path IN ({marks})", names)
    return {path: (FileStat(size_bytes, mtime_ns, mark), FileFacts(*facts)) for path, size_bytes, mtime_ns, mark, *facts in rows}


def _insert(connection: sqlite3.Connection, new: Sequence[tuple[str, FileStat, FileFacts]]) -> None:
    rows = [(path, *astuple(stat), *astuple(facts)) for path, stat, facts in new]
    connection.executemany("INSERT OR REPLACE INTO files_2 VALUES (?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?)", rows)
