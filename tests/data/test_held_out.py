"""Pictures that are held out: which ones, and that nothing else learns or loses them."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from weber.config.data import DataConfig
from weber.data.dataset import Dataset
from weber.data.pictures import Pictures
from weber.errors import DataError

Read = Callable[..., Dataset]
Write = Callable[..., Path]


def _config(path: Path, **keys: Any) -> DataConfig:
    return DataConfig(path=path, **{"resolution": 64, "bucket_step": 16, **keys})


def _names(pictures: Pictures) -> set[str]:
    return {one.path.name for one in pictures}


@pytest.fixture
def folder(tmp_path: Path, write_picture: Write) -> Path:
    for number in range(20):
        write_picture(tmp_path / "set" / f"{number:02d}.png", seed=number, caption=f"number {number}")
    return tmp_path / "set"


def test_the_share_is_drawn_by_names_and_is_the_same_for_every_seed_and_size(folder: Path, read_sets: Read) -> None:
    first = read_sets(_config(folder, evaluation=0.2))
    other = read_sets(_config(folder, evaluation=0.2, resolution=48, name="small"), seed=9)
    whole = read_sets(_config(folder))
    assert len(first.held_out) == 4 and len(first.examples) == 16
    assert _names(first.held_out) | _names(first.examples) == _names(whole.examples) and len(whole.held_out) == 0
    assert _names(other.held_out) == _names(first.held_out)
    assert _names(read_sets(_config(folder, evaluation=0.1)).held_out) < _names(first.held_out)
    assert len(read_sets(_config(folder, evaluation=0.001)).held_out) == 1, "at least one"
    again = read_sets(_config(folder, evaluation=0.2))
    assert again.num_opened == 0 and again.held_out == first.held_out and again.examples == first.examples


def test_with_a_limit_a_share_of_what_is_left_is_held_out(folder: Path, read_sets: Read) -> None:
    limited = read_sets(_config(folder, limit=10))
    held = read_sets(_config(folder, limit=10, evaluation=0.3))
    assert len(held.held_out) == 3 and _names(held.held_out) | _names(held.examples) == _names(limited.examples)


def test_what_cannot_be_used_is_set_aside_once(folder: Path, read_sets: Read) -> None:
    (folder / "00.txt").unlink()
    (folder / "broken.png").write_bytes(b"no picture")
    (folder / "broken.txt").write_text("broken")
    dataset = read_sets(_config(folder, evaluation=0.2))
    assert sorted(item.path.name for item in dataset.set_aside) == ["00.png", "broken.png"]
    assert len(dataset.examples) + len(dataset.held_out) == 19


def test_copies_of_what_is_learned_are_named(folder: Path, read_sets: Read, write_picture: Write) -> None:
    write_picture(folder.parent / "other" / "copy.png", seed=3, caption="number 3")
    dataset = read_sets(_config(folder), _config(folder.parent / "other", evaluation=1.0))
    assert len(dataset.examples) == 20 and _names(dataset.held_out) == {"copy.png"}
    assert [note for note in dataset.notes if "held out" in note] == [
        "other: 1 picture (copy.png) held out that the set set learns too, so they say nothing; remove one of each"
    ]


def test_a_share_that_leaves_nothing_is_refused(folder: Path, read_sets: Read) -> None:
    with pytest.raises(DataError, match=r"data.0.evaluation leaves no picture of the set to be learned"):
        read_sets(_config(folder, evaluation=0.99))
