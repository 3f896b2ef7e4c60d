"""The index: what is opened again, damage, and several processes."""

from __future__ import annotations

import os
import sqlite3
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import pytest

from weber.data.backends.local import LocalBackend
from weber.data.index import FileFacts, Index
from weber.errors import DataError, MissingExtraError


def _inspect(data: bytes) -> FileFacts:
    if data == b"bad":
        raise DataError("bad file")
    return FileFacts(content=data.hex(), width=len(data), height=2, text="π")


def _write(folder: Path, num: int) -> list[Path]:
    paths = [folder / f"{n:04}.bin" for n in range(num)]
    for n, path in enumerate(paths):
        path.write_bytes(b"%d" % n)
    return paths


def _read(index_path: Path, paths: list[Path]) -> tuple[list[FileFacts], int]:
    index = Index(index_path, backend=LocalBackend())
    facts = index.read_facts(paths, _inspect, report=lambda done, total: None)
    return facts, index.num_opened


@pytest.fixture
def index_path(tmp_path: Path) -> Path:
    return tmp_path / "new" / "index.sqlite"


def test_only_new_and_changed_files_are_opened(tmp_path: Path, index_path: Path) -> None:
    paths = _write(tmp_path, 200)
    first, num_opened = _read(index_path, paths)
    assert num_opened == 200
    assert first[12] == FileFacts(content=b"12".hex(), width=2, height=2, text="π")
    assert _read(index_path, paths) == (first, 0)

    paths[3].write_bytes(b"other")  # another size
    paths[4].write_bytes(b"x")  # the same size
    os.utime(paths[4], ns=(0, paths[4].stat().st_mtime_ns + 1))
    os.utime(paths[5], ns=(0, 1))  # the same bytes at another time
    facts, num_opened = _read(index_path, paths)
    assert num_opened == 3
    assert (facts[3].content, facts[4].content, facts[5]) == (b"other".hex(), b"x".hex(), first[5])
    assert _read(index_path, paths[::-1]) == (facts[::-1], 0)


def test_reasons_are_remembered(tmp_path: Path, index_path: Path) -> None:
    (tmp_path / "a").write_bytes(b"bad")
    assert _read(index_path, [tmp_path / "a"]) == ([FileFacts(reason="bad file")], 1)
    assert _read(index_path, [tmp_path / "a"]) == ([FileFacts(reason="bad file")], 0)


def test_a_file_that_cannot_be_opened_is_tried_again(tmp_path: Path, index_path: Path) -> None:
    missing = tmp_path / "a"
    (facts,), num_opened = _read(index_path, [missing])
    assert facts.reason.startswith("unreadable file: ") and num_opened == 0
    missing.write_bytes(b"now")
    assert _read(index_path, [missing]) == ([FileFacts(content=b"now".hex(), width=3, height=2, text="π")], 1)


def test_facts_of_another_kind_are_not_mixed_up(tmp_path: Path, index_path: Path) -> None:
    paths = _write(tmp_path, 3)
    facts, _ = _read(index_path, paths)
    index = Index(index_path, backend=LocalBackend())
    for num_opened in (3, 3):
        assert [
            one.text for one in index.read_facts(paths, lambda data: FileFacts(text="other"), report=lambda done, total: None, kind="mask ")
        ] == ["other"] * 3
        assert index.num_opened == num_opened
    assert _read(index_path, paths) == (facts, 0)


def test_progress_reaches_the_end(tmp_path: Path, index_path: Path) -> None:
    said: list[tuple[int, int]] = []
    Index(index_path, backend=LocalBackend()).read_facts(
        _write(tmp_path, 150), _inspect, report=lambda done, total: said.append((done, total))
    )
    assert said == sorted(set(said)) and said[-1] == (150, 150) and len(said) > 1


def test_a_kill_loses_one_portion_at_most(tmp_path: Path, index_path: Path) -> None:
    paths = _write(tmp_path, 200)

    def stop(done: int, total: int) -> None:
        if done >= 100:
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        Index(index_path, backend=LocalBackend()).read_facts(paths, _inspect, report=stop)
    _, num_opened = _read(index_path, paths)
    assert num_opened <= 100


def _truncate(path: Path) -> None:
    os.truncate(path, path.stat().st_size // 2)


def _scramble(path: Path) -> None:
    data = path.read_bytes()
    path.write_bytes(data[:4096] + b"\xa5" * (len(data) - 4096))


@pytest.mark.parametrize("damage", [lambda path: path.write_bytes(b"no database at all " * 99), _truncate, _scramble])
def test_a_damaged_index_is_set_aside_and_made_anew(tmp_path: Path, index_path: Path, damage: Callable[[Path], None]) -> None:
    paths = _write(tmp_path, 300)
    facts, _ = _read(index_path, paths)
    damage(index_path)
    assert _read(index_path, paths) == (facts, 300)
    assert index_path.with_name("index.sqlite.damaged").exists()
    assert _read(index_path, paths) == (facts, 0)


def test_an_empty_index_file_is_filled(tmp_path: Path, index_path: Path) -> None:
    index_path.parent.mkdir()
    index_path.touch()
    assert _read(index_path, _write(tmp_path, 3))[1] == 3
    assert _read(index_path, _write(tmp_path, 0))[1] == 0


@pytest.mark.parametrize("obstacle", ["folder", "file"])
def test_an_index_that_cannot_be_is_one_error(tmp_path: Path, obstacle: str) -> None:
    path = tmp_path / "cache" / "index.sqlite"
    if obstacle == "folder":
        path.mkdir(parents=True)
    else:
        path.parent.write_bytes(b"a file where the folder should be")
    with pytest.raises(DataError, match=r'^the index ".*index\.sqlite" cannot be used\n  got: .*\n  fix: '):
        _read(path, _write(tmp_path, 1))


_READ = """
import sys
from pathlib import Path
from weber.data.backends.local import LocalBackend
from weber.data.index import FileFacts, Index

index_path, *paths = map(Path, sys.argv[1:])
index = Index(index_path, backend=LocalBackend())
index.read_facts(paths, lambda data: FileFacts(content=data.hex(), width=len(data), height=2, text="π"), report=lambda done, total: None)
"""


def test_several_processes_share_an_index(tmp_path: Path, index_path: Path) -> None:
    paths = _write(tmp_path, 400)
    parts = [[str(path) for path in paths[n * 50 : n * 50 + 250]] for n in range(4)]
    processes = [subprocess.Popen([sys.executable, "-c", _READ, str(index_path), *part]) for part in parts]
    assert [process.wait() for process in processes] == [0] * 4
    facts, num_opened = _read(index_path, paths)
    assert num_opened == 0 and [fact.content for fact in facts] == [path.read_bytes().hex() for path in paths]
    connection = sqlite3.connect(index_path)
    assert connection.execute("PRAGMA integrity_check").fetchone() == ("ok",)
    connection.close()


def _replace(path: Path, data: bytes) -> None:
    """As archives and copies do: another file of that name, size and time."""
    stat = path.stat()
    new = path.with_name("other")
    new.write_bytes(data)
    os.utime(new, ns=(stat.st_atime_ns, stat.st_mtime_ns))
    new.replace(path)


def _overwrite(path: Path, data: bytes) -> None:
    stat = path.stat()
    path.write_bytes(data)
    os.utime(path, ns=(stat.st_atime_ns, stat.st_mtime_ns))


@pytest.mark.parametrize("change", [_replace, _overwrite])
def test_a_file_of_the_same_size_and_time_is_noticed(
    tmp_path: Path, index_path: Path, change: Callable[[Path, bytes], None]
) -> None:
    (tmp_path / "a").write_bytes(b"red")
    assert _read(index_path, [tmp_path / "a"])[0][0].content == b"red".hex()
    before = tmp_path.joinpath("a").stat()
    change(tmp_path / "a", b"tan")
    after = tmp_path.joinpath("a").stat()
    assert (before.st_size, before.st_mtime_ns) == (after.st_size, after.st_mtime_ns)
    (facts,), num_opened = _read(index_path, [tmp_path / "a"])
    assert (facts.content, num_opened) == (b"tan".hex(), 1)


def test_where_the_time_of_the_change_is_not_known_the_file_is_sampled(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """On Windows `st_ctime` is the time of creation."""
    monkeypatch.setattr(LocalBackend, "samples", True)
    marks = []
    for data in (b"red", b"tan", b"x" * 100_000, b"x" * 99_999 + b"y", b"x" * 50_000 + b"y" + b"x" * 49_999):
        (tmp_path / "a").write_bytes(data)
        marks.append(LocalBackend().stat(tmp_path / "a").mark.split()[2])
    assert len(set(marks)) == 5


def test_reasons_that_a_package_would_mend_are_not_remembered(tmp_path: Path, index_path: Path) -> None:
    (tmp_path / "a").write_bytes(b"x")

    def refuse(data: bytes) -> FileFacts:
        raise MissingExtraError("HEIC picture: pip install it")

    index = Index(index_path, backend=LocalBackend())
    (facts,) = index.read_facts([tmp_path / "a"], refuse, report=lambda done, total: None)
    assert facts.reason == "HEIC picture: pip install it"
    assert _read(index_path, [tmp_path / "a"])[0][0].content == b"x".hex()
