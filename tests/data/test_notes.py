"""What a person is told of the sets without having asked."""

from __future__ import annotations

import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from weber.config.data import DataConfig
from weber.data.examples import Dataset
from weber.errors import DataError

Read = Callable[..., Dataset]
Write = Callable[..., Path]


def _config(path: Path, **keys: Any) -> DataConfig:
    return DataConfig(path=path, **{"resolution": 64, "bucket_step": 16, **keys})


def test_pictures_twice_in_one_set(tmp_path: Path, write_picture: Write, read_sets: Read) -> None:
    for number, name in enumerate("abc"):
        write_picture(tmp_path / "set" / f"{name}.png", seed=number)
    (tmp_path / "set" / "more").mkdir()
    for name in ("a.png", "b.png", "a.txt", "b.txt"):
        shutil.copyfile(tmp_path / "set" / name, tmp_path / "set" / "more" / f"copy of {name}")
    assert read_sets(_config(tmp_path / "set")).notes == (
        "set: 2 pictures there once more, byte for byte, and trained as often: a.png = copy of a.png, b.png = copy of b.png",
    )


def test_the_same_pictures_learned_and_regularized(tmp_path: Path, write_picture: Write, read_sets: Read) -> None:
    write_picture(tmp_path / "set" / "a.png", seed=1)
    write_picture(tmp_path / "set" / "reg" / "b.png", seed=2)
    note = "reg: 1 picture (b.png) for regularization that the set set learns; keep their folders apart, neither inside of the other"
    sets = [_config(tmp_path / "set"), _config(tmp_path / "set" / "reg", regularization=True)]
    assert read_sets(*sets).notes == (note,)
    assert read_sets(*reversed(sets)).notes == (note,)
    assert read_sets(sets[0].model_copy(update={"recursive": False}), sets[1]).notes == ()


def test_a_pair_of_resolutions_that_is_none(tmp_path: Path, write_picture: Write, read_sets: Read) -> None:
    write_picture(tmp_path / "set" / "small.png", 64, 64, seed=1)
    write_picture(tmp_path / "set" / "large.png", 128, 128, seed=2)
    pair = [_config(tmp_path / "set", name="low"), _config(tmp_path / "set", name="high", resolution=128)]
    small, twice = read_sets(*pair).notes
    assert small == (
        "high: 1 of 2 pictures smaller than asked for, so trained smaller, down to 64 x 64 pixels; upscale = true enlarges,"
        " minimum_edge sets aside"
    )
    assert twice == (
        "high: 1 picture (small.png) that the set low has at the same size and with the same captions, so they are trained twice"
    )
    (tmp_path / "set" / "small.png").unlink()
    assert [note for note in read_sets(*pair).notes if "caption file" not in note] == []


def test_folders_named_as_elsewhere(tmp_path: Path, write_picture: Write, read_sets: Read) -> None:
    top = tmp_path / "set"
    folder = top / "10_sks dog"
    write_picture(folder / "a.png")
    (note,) = read_sets(_config(folder)).notes
    assert 'the folder "10_sks dog"' in note and "set data.0.repeats = 10" in note and 'instance_prompt = "sks dog"' in note
    assert read_sets(_config(folder, repeats=10)).notes == ()
    (note,) = read_sets(_config(top, recursive=True)).notes
    assert "data.0.repeats = 10" in note
    (folder / "a.txt").unlink()
    with pytest.raises(DataError) as error:
        read_sets(_config(top))
    assert 'data.0.captions = "instance", data.0.instance_prompt = "sks dog"' in error.value.fix
    write_picture(tmp_path / "2024_summer" / "a.png")
    assert read_sets(_config(tmp_path / "2024_summer")).notes == ()
