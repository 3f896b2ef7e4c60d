"""The latest valid checkpoint is found; every kind of damage is seen, named and passed over."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path

import pytest

from weber.checkpoint.resume import check_checkpoint, load_latest
from weber.checkpoint.save import MANIFEST

Save = Callable[[int], Path]
ADAPTER, STATE = "adapter.safetensors", "state.json"


def _cut(folder: Path) -> None:
    data = (folder / ADAPTER).read_bytes()
    (folder / ADAPTER).write_bytes(data[:-1])


def _lengthen(folder: Path) -> None:
    with (folder / ADAPTER).open("ab") as file:
        file.write(b"\0")


def _flip(folder: Path) -> None:
    data = bytearray((folder / ADAPTER).read_bytes())
    data[len(data) // 2] ^= 1
    (folder / ADAPTER).write_bytes(data)


def _empty(folder: Path) -> None:
    (folder / STATE).write_bytes(b"")


def _delete(folder: Path) -> None:
    (folder / STATE).unlink()


def _make_folder(folder: Path) -> None:
    (folder / STATE).unlink()
    (folder / STATE).mkdir()


def _exchange(folder: Path) -> None:
    (folder / STATE).rename(folder / "other")
    (folder / ADAPTER).rename(folder / STATE)
    (folder / "other").rename(folder / ADAPTER)


def _delete_manifest(folder: Path) -> None:
    (folder / MANIFEST).unlink()


def _replace_manifest(text: bytes) -> Callable[[Path], None]:
    def replace(folder: Path) -> None:
        (folder / MANIFEST).write_bytes(text)

    return replace


DAMAGES = {
    "cut": (_cut, f"{ADAPTER} is not as it was written"),
    "longer": (_lengthen, f"{ADAPTER} is not as it was written"),
    "flipped bit": (_flip, f"{ADAPTER} is not as it was written"),
    "emptied": (_empty, f"{STATE} is not as it was written"),
    "deleted": (_delete, f"{STATE} cannot be read"),
    "a folder": (_make_folder, f"{STATE} cannot be read"),
    "exchanged": (_exchange, f"{ADAPTER} is not as it was written"),
    "no manifest": (_delete_manifest, f"{MANIFEST} cannot be read"),
    "empty manifest": (_replace_manifest(b""), f"{MANIFEST} is not as it was written"),
    "cut manifest": (_replace_manifest(b'{"state.json": {"by'), f"{MANIFEST} is not as it was written"),
    "binary manifest": (_replace_manifest(b"\xff\xfe\x00"), f"{MANIFEST} is not as it was written"),
    "list as manifest": (_replace_manifest(b"[]"), f"{MANIFEST} is not as it was written"),
    "text as manifest": (_replace_manifest(b'"state.json"'), f"{MANIFEST} is not as it was written"),
    "nothing in manifest": (_replace_manifest(b"{}"), f"{MANIFEST} is empty"),
    "other values in manifest": (_replace_manifest(b'{"state.json": 5}'), f"{STATE} is not as it was written"),
}


@pytest.mark.parametrize("kind", DAMAGES)
def test_a_damaged_checkpoint_is_passed_over(save: Save, tmp_path: Path, kind: str) -> None:
    damage, reason = DAMAGES[kind]
    good, bad = save(3), save(6)
    assert check_checkpoint(bad) is None
    damage(bad)
    found = load_latest(tmp_path)
    assert (found.step, found.folder) == (3, good)
    assert list(found.damaged) == [bad]
    assert found.damaged[bad].startswith(reason)


def test_the_newest_valid_one_is_found_and_older_ones_are_not_read(save: Save, tmp_path: Path) -> None:
    oldest, old, new = save(3), save(6), save(9)
    _flip(oldest)
    assert (load_latest(tmp_path).folder, load_latest(tmp_path).damaged) == (new, {})
    _flip(new)
    _delete(old)
    found = load_latest(tmp_path)
    assert (found.step, found.folder) == (0, None)
    assert list(found.damaged) == [new, old, oldest]


def test_nothing_there(tmp_path: Path) -> None:
    for folder in (tmp_path, tmp_path / "missing"):
        found = load_latest(folder)
        assert (found.step, found.folder, found.damaged) == (0, None, {})


def test_a_file_with_the_name_of_a_checkpoint(save: Save, tmp_path: Path) -> None:
    good = save(3)
    (tmp_path / "checkpoint-000009").write_bytes(b"")
    found = load_latest(tmp_path)
    assert found.folder == good
    assert list(found.damaged) == [tmp_path / "checkpoint-000009"]


def test_files_that_came_later_do_no_harm(save: Save) -> None:
    folder = save(3)
    (folder / "notes.txt").write_text("the good one", encoding="utf-8")
    assert check_checkpoint(folder) is None


def test_every_flipped_bit_of_every_file_is_seen(save: Save) -> None:
    """In the manifest, a flip that changes nothing in what it says (in the white space) may pass."""
    folder = save(3)
    for name in (STATE, MANIFEST):
        file = folder / name
        data = file.read_bytes()
        meaning = json.loads(data)
        for position in range(len(data)):
            for bit in (0, 5):
                flipped = bytearray(data)
                flipped[position] ^= 1 << bit
                file.write_bytes(flipped)
                if check_checkpoint(folder) is None:
                    assert name == MANIFEST
                    assert json.loads(flipped) == meaning
        file.write_bytes(data)
    assert check_checkpoint(folder) is None
