"""A set of which nothing has changed is opened as it was; whatever changes, it is looked at again."""

from __future__ import annotations

import json
import os
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from weber.config.data import DataConfig
from weber.data import build, known
from weber.data.dataset import Dataset
from weber.data.sets import PictureLimits

Read = Callable[..., Dataset]
Write = Callable[..., Path]


@pytest.fixture
def built(monkeypatch: pytest.MonkeyPatch) -> list[str]:
    """The keys of the sets that were not opened as they were."""
    keys: list[str] = []
    build_set = build._Builder._build

    def remember(self: Any, *arguments: Any, key: str, **others: Any) -> Any:
        keys.append(key)
        return build_set(self, *arguments, key=key, **others)

    monkeypatch.setattr(build._Builder, "_build", remember)
    return keys


def _config(path: Path, **keys: Any) -> DataConfig:
    return DataConfig(path=path, **{"resolution": 64, "bucket_step": 16, **keys})


def _write(folder: Path, write: Write) -> Path:
    for number in range(4):
        write(folder / f"{number}.png", 64 + 16 * number, seed=number, caption=f"picture {number}")
    (folder / "4.png").write_bytes(b"no picture")
    (folder / "lone.txt").write_text("of nothing")
    return folder


def test_what_is_known_is_not_looked_at(tmp_path: Path, write_picture: Write, read_sets: Read, built: list[str]) -> None:
    config = _config(_write(tmp_path / "set", write_picture))
    first, again = read_sets(config), read_sets(config)
    assert built == ["data.0"]
    assert (again.examples, again.set_aside, again.notes, again.num_opened) == (first.examples, first.set_aside, first.notes, 0)
    assert len(first.examples) == 4 and len(first.set_aside) == 1 and len(first.notes) == 1


CHANGES: dict[str, Callable[[Path, Write], object]] = {
    "a caption": lambda folder, write: (folder / "1.txt").write_text("picture X"),
    "a caption more": lambda folder, write: (folder / "4.txt").write_text("of the broken one"),
    "a caption less": lambda folder, write: (folder / "1.txt").unlink(),
    "a picture": lambda folder, write: write(folder / "1.png", seed=9, caption=None),
    "a picture more": lambda folder, write: write(folder / "deep" / "5.png", seed=5),
    "a picture less": lambda folder, write: (folder / "1.png").unlink(),
    "a name": lambda folder, write: (folder / "1.png").rename(folder / "9.png"),
    "a time": lambda folder, write: os.utime(folder / "1.png", ns=(0, 1)),
    "another file": lambda folder, write: (folder / "notes.doc").write_text("x"),
}


@pytest.mark.parametrize("change", CHANGES)
def test_a_change_is_seen(tmp_path: Path, write_picture: Write, read_sets: Read, built: list[str], change: str) -> None:
    folder = _write(tmp_path / "set", write_picture)
    read_sets(_config(folder))
    CHANGES[change](folder, write_picture)
    changed = read_sets(_config(folder))
    assert built == ["data.0"] * 2
    for file in (tmp_path / "cache" / known.FOLDER_NAME).iterdir():
        file.unlink()
    assert read_sets(_config(folder)).examples == changed.examples


@pytest.mark.parametrize(
    "keys", [{"resolution": 48}, {"crop": "corner"}, {"repeats": 2}, {"name": "other"}, {"captions": "filename"}, {"limit": 2}]
)
def test_settings_have_columns_of_their_own(
    tmp_path: Path, write_picture: Write, read_sets: Read, built: list[str], keys: dict[str, Any]
) -> None:
    folder = _write(tmp_path / "set", write_picture)
    one, other = _config(folder), _config(folder, **keys)
    first, second = read_sets(one), read_sets(other)
    assert len(built) == 2
    assert (read_sets(one).examples, read_sets(other).examples) == (first.examples, second.examples)
    assert len(built) == 2
    read_sets(one, seed=2)
    assert len(built) == 3


def test_references_and_masks_beside_a_set(tmp_path: Path, write_picture: Write, read_sets: Read, built: list[str]) -> None:
    folder, takes = _write(tmp_path / "set", write_picture), PictureLimits(max_references=1)
    for number in range(4):
        write_picture(tmp_path / "before" / f"{number}.png", 64 + 16 * number, seed=10 + number, caption=None)
    config = _config(folder, conditioning=[tmp_path / "before"])
    first = read_sets(config, inputs=takes)
    assert read_sets(config, inputs=takes).examples == first.examples and len(built) == 1
    write_picture(tmp_path / "before" / "2.png", seed=99, caption=None)
    assert read_sets(config, inputs=takes).examples != first.examples and len(built) == 2


def test_lists_of_wildcards(tmp_path: Path, write_picture: Write, read_sets: Read, built: list[str]) -> None:
    (tmp_path / "lists").mkdir()
    (tmp_path / "lists" / "color.txt").write_text("red\nblue")
    write_picture(tmp_path / "set" / "a.png", caption="a __color__ cat")
    config = _config(tmp_path / "set", caption_steps=[{"kind": "wildcards", "folder": str(tmp_path / "lists")}])
    for _ in range(2):
        assert read_sets(config).examples[0].captions == ("a red cat", "a blue cat")
    assert len(built) == 1
    (tmp_path / "lists" / "color.txt").write_text("red\ngreen")
    assert read_sets(config).examples[0].captions == ("a red cat", "a green cat") and len(built) == 2


def test_files_of_a_table_that_lie_elsewhere(tmp_path: Path, write_picture: Write, read_sets: Read, built: list[str]) -> None:
    write_picture(tmp_path / "set" / "a.png", caption=None)
    elsewhere = write_picture(tmp_path / "other" / "b.png", seed=1, caption=None)
    table = tmp_path / "a.jsonl"
    rows = [{"image": "a.png", "text": "a"}, {"image": "../other/b.png", "text": "b"}]
    table.write_text("".join(json.dumps(row) + "\n" for row in rows))
    config = _config(tmp_path / "set", metadata=table)
    first = read_sets(config)
    assert read_sets(config).examples == first.examples and len(built) == 1
    write_picture(elsewhere, seed=2, caption=None)
    assert read_sets(config).examples != first.examples and len(built) == 2
    elsewhere.unlink()
    assert len(read_sets(config).examples) == 1 and len(built) == 3
    table.write_text(json.dumps(rows[0] | {"text": "another"}))
    assert read_sets(config).examples[0].captions == ("another",) and len(built) == 4


@pytest.mark.skipif(sys.platform == "win32" or os.geteuid() == 0, reason="root may read everything, Windows has no such rights")
def test_what_may_heal_is_not_kept(tmp_path: Path, write_picture: Write, read_sets: Read, built: list[str]) -> None:
    folder = _write(tmp_path / "set", write_picture)
    (folder / "1.png").chmod(0)
    assert len(read_sets(_config(folder)).examples) == 3
    (folder / "1.png").chmod(0o644)
    assert len(read_sets(_config(folder)).examples) == 4


def test_a_missing_package_is_not_kept(
    tmp_path: Path, write_picture: Write, read_sets: Read, built: list[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    folder = _write(tmp_path / "set", write_picture)
    (folder / "x.jxl").write_bytes(b"\xff\x0a" + bytes(60))
    (folder / "x.txt").write_text("x")
    monkeypatch.setattr("weber.data.formats.importlib.util.find_spec", lambda name: None)
    for _ in range(2):
        assert "JPEG XL" in " ".join(item.reason for item in read_sets(_config(folder)).set_aside)
    assert len(built) == 2


@pytest.mark.parametrize("damage", [b"", b"x" * 999])
def test_damaged_columns_are_made_anew(tmp_path: Path, write_picture: Write, read_sets: Read, built: list[str], damage: bytes) -> None:
    config = _config(_write(tmp_path / "set", write_picture))
    first = read_sets(config)
    (file,) = (tmp_path / "cache" / known.FOLDER_NAME).iterdir()
    file.unlink()  # what is mapped may not be cut
    file.write_bytes(damage)
    assert read_sets(config).examples == first.examples and len(built) == 2
    assert read_sets(config).examples == first.examples and len(built) == 2


def test_other_code_looks_again(
    tmp_path: Path, write_picture: Write, read_sets: Read, built: list[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    config = _config(_write(tmp_path / "set", write_picture))
    read_sets(config)
    monkeypatch.setattr(known, "_identify_code", lambda: "another version")
    read_sets(config)
    assert len(built) == 2


def test_sets_that_nobody_has_are_forgotten(tmp_path: Path, write_picture: Write, read_sets: Read, built: list[str]) -> None:
    folder = _write(tmp_path / "set", write_picture)
    kept = read_sets(_config(folder)).kept
    read_sets(_config(folder, resolution=48))
    home = tmp_path / "cache" / known.FOLDER_NAME
    assert len(list(home.iterdir())) == 2
    found = known.collect_columns(home, kept, is_dry=True)
    assert found[0] == 1 and found[1] > 500 and len(list(home.iterdir())) == 2
    assert known.collect_columns(home, kept, is_dry=False) == found and list(home.iterdir()) == list(kept)
    read_sets(_config(folder))
    assert len(built) == 2
