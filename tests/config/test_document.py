"""A file is written over only where it is as it was read."""

from __future__ import annotations

from pathlib import Path

import pytest

from weber.config.document import read_document, write_document
from weber.errors import ChangedError, ConfigError


def test_a_file_keeps_its_ends_of_lines_its_mark_and_who_may_read_it(tmp_path: Path) -> None:
    path = tmp_path / "run.toml"
    path.write_bytes(b"\xef\xbb\xbf[train]\r\nsteps = 5\r\n")
    path.chmod(0o600)
    read = read_document(path)
    assert read.text == "[train]\nsteps = 5\n"
    write_document(read, read.text + "seed = 1\n")
    assert path.read_bytes() == b"\xef\xbb\xbf[train]\r\nsteps = 5\r\nseed = 1\r\n"
    assert path.stat().st_mode & 0o777 == 0o600 and [one.name for one in tmp_path.iterdir()] == ["run.toml"]


def test_what_somebody_else_has_written_stays(tmp_path: Path) -> None:
    path = tmp_path / "run.toml"
    path.write_text("steps = 5\n", encoding="utf-8")
    read = read_document(path)
    path.write_text("steps = 6\n", encoding="utf-8")
    with pytest.raises(ChangedError, match="changed by somebody else"):
        write_document(read, "steps = 7\n")
    assert path.read_text(encoding="utf-8") == "steps = 6\n"
    written = write_document(read_document(path), "steps = 7\n")
    with pytest.raises(ChangedError):
        write_document(written, "steps = 8\n", stamp=read.stamp)
    path.unlink()
    with pytest.raises(ChangedError):
        write_document(written, "steps = 8\n")


def test_a_new_file_and_a_link(tmp_path: Path) -> None:
    place, link = tmp_path / "real.txt", tmp_path / "link.txt"
    write_document(read_document(place), "one\n")
    link.symlink_to(place)
    write_document(read_document(link), "two\n")
    assert link.is_symlink() and place.read_text(encoding="utf-8") == "two\n"
    place.write_bytes(b"\xff")
    with pytest.raises(ConfigError, match="UTF-8"):
        read_document(place)
