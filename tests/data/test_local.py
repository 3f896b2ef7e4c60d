"""Listing local folders: order, hidden files, links and loops."""

from __future__ import annotations

import os
from pathlib import Path

import pytest

from weber.data.backends.backend import Backend
from weber.data.backends.local import LocalBackend
from weber.errors import DataError


def _touch(folder: Path, *names: str) -> None:
    for name in names:
        (folder / name).parent.mkdir(parents=True, exist_ok=True)
        (folder / name).write_bytes(b"x")


def _list(folder: Path, *, recursive: bool = True) -> list[str]:
    backend: Backend = LocalBackend()
    return list(backend.list(folder, recursive=recursive).names)


def test_order_is_that_of_posix_names(tmp_path: Path) -> None:
    _touch(tmp_path, "b.jpg", "a/z.jpg", "a.jpg", "a/b/c.jpg", "B.jpg", "a-1.jpg")
    assert _list(tmp_path) == ["B.jpg", "a-1.jpg", "a.jpg", "a/b/c.jpg", "a/z.jpg", "b.jpg"]
    assert _list(tmp_path, recursive=False) == ["B.jpg", "a-1.jpg", "a.jpg", "b.jpg"]


def test_hidden_files_and_folders_are_not_listed(tmp_path: Path) -> None:
    folder = tmp_path / ".set"
    _touch(folder, "a.jpg", "._a.jpg", ".git/b.jpg", "c/.d/e.jpg")
    assert _list(folder) == ["a.jpg"]


@pytest.mark.skipif(os.name == "nt", reason="making links needs rights on Windows")
def test_loops_of_links_end(tmp_path: Path) -> None:
    _touch(tmp_path, "a/b.jpg", "z/c.jpg")
    (tmp_path / "a" / "up").symlink_to(tmp_path, target_is_directory=True)
    (tmp_path / "a" / "self").symlink_to(tmp_path / "a" / "self")
    (tmp_path / "linked").symlink_to(tmp_path / "z", target_is_directory=True)
    assert _list(tmp_path) == ["a/b.jpg", "a/self", "linked/c.jpg"]


def test_stat_and_read(tmp_path: Path) -> None:
    _touch(tmp_path, "a.jpg")
    os.utime(tmp_path / "a.jpg", ns=(5, 1_000_000_000))
    stat = LocalBackend().stat(tmp_path / "a.jpg")
    assert LocalBackend().list(tmp_path, recursive=True).stats == [stat]
    assert (stat.size_bytes, stat.mtime_ns) == (1, 1_000_000_000)
    assert LocalBackend().read(tmp_path / "a.jpg") == b"x"


@pytest.mark.parametrize("name", ["missing.jpg", "folder.jpg"])
def test_what_is_no_file_has_a_reason(tmp_path: Path, name: str) -> None:
    (tmp_path / "folder.jpg").mkdir()
    with pytest.raises(DataError) as error:
        LocalBackend().stat(tmp_path / name)
    assert error.value.what.startswith("unreadable file: ")
    with pytest.raises(DataError, match="unreadable file"):
        LocalBackend().read(tmp_path / name)


def test_a_missing_folder_is_an_error(tmp_path: Path) -> None:
    with pytest.raises(DataError, match="cannot be listed"):
        _list(tmp_path / "missing")
