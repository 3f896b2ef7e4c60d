"""What is known about files, so that at the next start only new and changed ones are opened."""

from __future__ import annotations

import sqlite3
from collections.abc import Callable, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import closing, suppress
from functools import partial
from pathlib import Path
from types import MappingProxyType
from typing import NamedTuple, TypeVar

from weber.data.backends.backend import Backend, FileStat
from weber.errors import DataError, MissingExtraError

# The number goes up when a row of an older weber would say something else than today's code.
_CREATE = """CREATE TABLE IF NOT EXISTS files_2 (path TEXT PRIMARY KEY, size_bytes INTEGER, mtime_ns INTEGER, mark TEXT,
    content TEXT, width INTEGER, height INTEGER, text TEXT, reason TEXT, form TEXT, problem TEXT, share REAL) WITHOUT ROWID"""
_NUM_PER_PORTION = 64  # a kill loses the work of one portion
_NUM_PER_QUESTION = 1024
_LOCK_SECONDS = 60.0

_T = TypeVar("_T")


class FileFacts(NamedTuple):
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
_Stats = Mapping[str, FileStat | None]


class Index:
    """One sqlite file of facts by absolute path and stat. Several processes may use it at once.

    A damaged file is set aside as `<name>.damaged` and made anew. Raises DataError where it cannot be read or written at all.
    """

    def __init__(self, path: Path, *, backend: Backend) -> None:
        self._path, self._backend = path, backend
        self.num_opened = 0
        """How many files had to be opened so far."""
        self.asked: dict[str, FileStat] = {}
        """The files whose stat nobody had told, and what it was."""
        self.num_passing = 0
        """How many reasons so far may heal without a change of the file, such as permissions and missing packages."""

    def read_facts(
        self,
        paths: Sequence[Path],
        inspect: Callable[[bytes], FileFacts],
        *,
        report: Callable[[int, int], None],
        kind: str = "",
        stats: _Stats = MappingProxyType({}),
    ) -> list[FileFacts]:
        """Facts of each absolute path, in order. `inspect` opens what is new; a DataError of it is remembered as the reason.

        `report` is called with the number of files done and in all. Facts of one `kind` are not those of another. `stats` are those of
        files that were listed a moment ago.
        """
        found: list[FileFacts] = []
        with ThreadPoolExecutor() as pool:
            for start in range(0, len(paths), _NUM_PER_QUESTION):
                asked = paths[start : start + _NUM_PER_QUESTION]
                names = [f"{kind}{path}" for path in asked]
                known = self._transact(partial(_select, names=names))
                facts = [_recall(stats.get(str(path)), known.get(name)) for path, name in zip(asked, names, strict=True)]
                new = [place for place, one in enumerate(facts) if one is None]
                for first in range(0, len(new), _NUM_PER_PORTION):
                    portion = new[first : first + _NUM_PER_PORTION]
                    looks = pool.map(partial(self._look, inspect), [asked[n] for n in portion], [known.get(names[n]) for n in portion])
                    looked = dict(zip(portion, looks, strict=True))
                    self._keep([(names[place], stat, one) for place, (stat, one) in looked.items() if stat is not None])
                    facts = [looked[place][1] if place in looked else one for place, one in enumerate(facts)]
                    if first + _NUM_PER_PORTION < len(new):
                        report(start + portion[-1] + 1, len(paths))
                found += [one for one in facts if one is not None]
                report(len(found), len(paths))
        return found

    def _keep(self, new: Sequence[tuple[str, FileStat, FileFacts]]) -> None:
        self.num_opened += len(new)
        if new:
            self._transact(partial(_insert, new=new))

    def _look(
        self, inspect: Callable[[bytes], FileFacts], path: Path, known: tuple[FileStat, FileFacts] | None
    ) -> tuple[FileStat | None, FileFacts]:
        """Facts of one file, and its stat if it was opened."""
        try:
            stat = self._backend.stat(path)
            self.asked[str(path)] = stat
            if known is not None and known[0] == stat:
                return None, known[1]
            data = self._backend.read(path)
        except DataError as error:  # not remembered: permissions and disks heal without a change of the file
            self.num_passing += 1
            return None, FileFacts(reason=error.what)
        try:
            return stat, inspect(data)
        except DataError as error:
            return stat, FileFacts(reason=error.what)
        except MissingExtraError as error:  # not remembered either: packages are installed without a change of the file
            self.num_passing += 1
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


def _recall(stat: FileStat | None, known: tuple[FileStat, FileFacts] | None) -> FileFacts | None:
    """What is known of a file that was listed; None if it has to be looked at."""
    return known[1] if known is not None and known[0] == stat else None


def _select(connection: sqlite3.Connection, names: Sequence[str]) -> _Known:
    marks = ", ".join("?" * len(names))
    rows = connection.execute(f"SELECT * FROM files_2 WHERE path IN ({marks})", names)
    return {path: (FileStat(size_bytes, mtime_ns, mark), FileFacts(*facts)) for path, size_bytes, mtime_ns, mark, *facts in rows}


def _insert(connection: sqlite3.Connection, new: Sequence[tuple[str, FileStat, FileFacts]]) -> None:
    rows = [(path, *stat, *facts) for path, stat, facts in new]
    connection.executemany("INSERT OR REPLACE INTO files_2 VALUES (?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?)", rows)
