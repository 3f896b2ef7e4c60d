"""What is to be done, is being done and was done, in an SQLite file: the only thing that the pages remember beside the files themselves."""

from __future__ import annotations

import json
import sqlite3
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

from weber.errors import ConfigError
from weber.serve.site import Site

QUEUE_NAME = "queue.sqlite"
_SCHEMA = """
CREATE TABLE IF NOT EXISTS jobs (
    id INTEGER PRIMARY KEY AUTOINCREMENT, kind TEXT NOT NULL, title TEXT NOT NULL, words TEXT NOT NULL, folder TEXT NOT NULL,
    run TEXT NOT NULL, is_heavy INTEGER NOT NULL, state TEXT NOT NULL, place REAL NOT NULL, created REAL NOT NULL, started REAL, ended REAL,
    pid INTEGER, process TEXT, slot TEXT, code INTEGER, asked REAL
);
CREATE INDEX IF NOT EXISTS jobs_by_state ON jobs (state, place);
CREATE TABLE IF NOT EXISTS notes (name TEXT PRIMARY KEY, value TEXT NOT NULL);
"""
_COLUMNS = "id, kind, title, words, folder, run, is_heavy, state, place, created, started, ended, pid, process, slot, code, asked"
_NOTED = {"state", "started", "ended", "pid", "process", "slot", "code", "asked"}
OPEN = ("waiting", "running")


@dataclass(frozen=True)
class Job:
    """One call of `weber`: `words` are its arguments, `folder` is where, `run` the run folder that it is about, or empty. `is_heavy`: it
    needs a slot. `state`: waiting, running, finished, failed, stopped, cancelled or killed. `asked`: when somebody wanted it to stop."""

    id: int
    kind: str
    title: str
    words: tuple[str, ...]
    folder: Path
    run: str
    is_heavy: bool
    state: str
    place: float
    created: float
    started: float | None
    ended: float | None
    pid: int | None
    process: str | None
    slot: str | None
    code: int | None
    asked: float | None

    @property
    def is_open(self) -> bool:
        """Whether it is still to end."""
        return self.state in OPEN


class Queue:
    """Reads and writes the file; every call is whole by itself, so that threads and processes need nothing else."""

    def __init__(self, site: Site) -> None:
        self._file = site.home / QUEUE_NAME
        self.logs = site.home / "jobs"
        self.logs.mkdir(parents=True, exist_ok=True)
        with self._open() as connection:
            connection.executescript(_SCHEMA)

    def add(
        self, kind: str, words: Sequence[str], *, title: str, folder: Path, run: Path | None = None, is_heavy: bool = False
    ) -> Job:
        """One more, at the end. Raises ConfigError where that run is to be trained, or is trained, already."""
        text = "" if run is None else str(run)
        with self._open() as connection:
            same = connection.execute("SELECT id FROM jobs WHERE kind='train' AND run=? AND state IN ('waiting', 'running')", (text,))
            if kind == "train" and text and same.fetchone() is not None:
                raise ConfigError("This run is in the queue already.", got=text, fix="wait for it, or take it out of the queue first")
            row = connection.execute(
                "INSERT INTO jobs (kind, title, words, folder, run, is_heavy, state, place, created)"
                " VALUES (?, ?, ?, ?, ?, ?, 'waiting', (SELECT COALESCE(MAX(place), 0) + 1 FROM jobs), ?)",
                (kind, title, json.dumps(list(words)), str(folder), text, int(is_heavy), time.time()),
            )
            number = row.lastrowid
        assert number is not None
        return self.read(number)

    def read(self, number: int) -> Job:
        """One of them. Raises ConfigError where there is none of that number."""
        found = self._select("WHERE id=?", number)
        if not found:
            raise ConfigError("There is no such job.", got=str(number), fix="look at the queue")
        return found[0]

    def list_open(self) -> list[Job]:
        """What is running, and what waits, in the order in which it is to be done."""
        return self._select("WHERE state IN ('running', 'waiting') ORDER BY state, place")

    def list_done(self, most: int) -> list[Job]:
        """What has ended last."""
        return self._select("WHERE state NOT IN ('running', 'waiting') ORDER BY ended DESC, id DESC LIMIT ?", most)

    def list_of_run(self, run: Path, *, most: int = 20) -> list[Job]:
        """What was done with a run, the latest first."""
        return self._select("WHERE run=? ORDER BY id DESC LIMIT ?", str(run), most)

    def list_runs(self) -> list[Path]:
        """The folders of all runs that were trained, or are to be, whether they are there by now or not."""
        with self._open() as connection:
            rows = connection.execute("SELECT run FROM jobs WHERE kind='train' AND run<>'' GROUP BY run ORDER BY MAX(id) DESC LIMIT 500")
            return [Path(row[0]) for row in rows]

    def move(self, number: int, *, before: int | None) -> None:
        """Put one that waits before another one; None: to the end."""
        waiting = [job for job in self.list_open() if job.state == "waiting" and job.id != number]
        place = next((at for at, job in enumerate(waiting) if job.id == before), len(waiting))
        order = [*waiting[:place], self.read(number), *waiting[place:]]
        with self._open() as connection:
            rows = [(float(at), job.id) for at, job in enumerate(order, 1)]
            connection.executemany("UPDATE jobs SET place=? WHERE id=? AND state='waiting'", rows)

    def note(self, number: int, **values: str | float | None) -> None:
        """What has become of one: values of its columns."""
        assert set(values) <= _NOTED
        with self._open() as connection:
            what = ", ".join(f"{name}=?" for name in values)
            connection.execute(f"UPDATE jobs SET {what} WHERE id=?", (*values.values(), number))

    def take(self, number: int, *, state: str) -> bool:
        """Give another state to one that waits; returns whether it was still waiting."""
        with self._open() as connection:
            sql = "UPDATE jobs SET state=?, ended=? WHERE id=? AND state='waiting'"
            return connection.execute(sql, (state, time.time() if state == "cancelled" else None, number)).rowcount > 0

    def forget(self, number: int) -> None:
        """Leave out one that has ended."""
        with self._open() as connection:
            connection.execute("DELETE FROM jobs WHERE id=? AND state NOT IN ('running', 'waiting')", (number,))

    @property
    def is_paused(self) -> bool:
        """Whether nothing that waits is started."""
        with self._open() as connection:
            return connection.execute("SELECT 1 FROM notes WHERE name='paused' AND value='1'").fetchone() is not None

    def pause(self, is_paused: bool) -> None:
        """Start nothing more, or go on."""
        with self._open() as connection:
            connection.execute("INSERT OR REPLACE INTO notes VALUES ('paused', ?)", (str(int(is_paused)),))

    def _select(self, what: str, *values: object) -> list[Job]:
        with self._open() as connection:
            rows = connection.execute(f"SELECT {_COLUMNS} FROM jobs {what}", values).fetchall()
        return [
            Job(row[0], row[1], row[2], tuple(json.loads(row[3])), Path(row[4]), row[5], bool(row[6]), *row[7:]) for row in rows
        ]

    @contextmanager
    def _open(self) -> Iterator[sqlite3.Connection]:
        connection = sqlite3.connect(self._file, timeout=10)
        try:
            connection.execute("PRAGMA journal_mode=WAL")
            connection.execute("PRAGMA synchronous=NORMAL")
            with connection:
                yield connection
        finally:
            connection.close()
