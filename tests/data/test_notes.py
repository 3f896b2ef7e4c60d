"""What a person is told of the sets without having asked."""

from __future__ import annotations

import os
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from PIL import Image

from weber.config.data import DataConfig
from weber.data.dataset import Dataset
from weber.data.sets import PictureLimits
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
    assert 'the folder "10_sks dog"' in note and "set data.0.repeats = 10" in note and 'takes "sks dog" where' in note
    assert read_sets(_config(folder, repeats=10)).notes == ()
    (note,) = read_sets(_config(top, recursive=True)).notes
    assert "data.0.repeats = 10" in note
    (folder / "a.txt").unlink()
    with pytest.raises(DataError) as error:
        read_sets(_config(top))
    assert 'data.0.captions = ["textfile", "foldername"] takes "sks dog"' in error.value.fix
    (note,) = read_sets(_config(top, captions="foldername")).notes
    assert "its number says nothing: in a set of its own, set data.0.repeats = 10" in note and "foldername" not in note
    write_picture(tmp_path / "2024_summer" / "a.png")
    assert read_sets(_config(tmp_path / "2024_summer")).notes == ()


def test_references_that_are_the_picture_or_nobodys(tmp_path: Path, write_picture: Write, read_sets: Read) -> None:
    takes = PictureLimits(max_references=1)
    for number, name in enumerate("ab"):
        write_picture(tmp_path / "set" / f"{name}.png", seed=number)
        write_picture(tmp_path / "before" / f"{name}.png", seed=2 * number, caption=None)
    config = _config(tmp_path / "set", conditioning=[tmp_path / "before"])
    assert read_sets(config, inputs=takes).notes == ("set: 1 picture (a.png) with itself as its reference, byte for byte",)
    for name in "ab":
        (tmp_path / "before" / f"{name}.png").rename(tmp_path / "before" / f"{name}_before.png")
    with pytest.raises(DataError) as error:
        read_sets(config, inputs=takes)
    assert "before: 2 references without a picture of that name: a_before.png, b_before.png" in error.value.got


def test_masks_among_the_pictures(tmp_path: Path, write_picture: Write, read_sets: Read) -> None:
    for number, name in enumerate(("a", "a-masklabel", "b", "b_mask", "gas mask", "mask")):
        write_picture(tmp_path / "set" / f"{name}.png", seed=number)
    (note,) = read_sets(_config(tmp_path / "set")).notes
    assert note.startswith("set: 2 pictures (a-masklabel.png, b_mask.png) named as a mask of another one") and "set loss_masks" in note


def test_only_the_first_frame_is_trained_and_that_is_said(tmp_path: Path, write_picture: Write, read_sets: Read) -> None:
    write_picture(tmp_path / "set" / "a.png")
    frames = [Image.new("RGB", (64, 64), color) for color in ("red", "blue")]
    for name in ("b.gif", "c.webp", "d.tif"):
        frames[0].save(tmp_path / "set" / name, save_all=True, append_images=frames[1:])
        (tmp_path / "set" / name).with_suffix(".txt").write_text("x")
    for dataset in (read_sets(_config(tmp_path / "set")), read_sets(_config(tmp_path / "set"))):
        assert dataset.notes == ("set: several frames or pages, of which the first is trained: 3 pictures (b.gif, c.webp, d.tif)",)


def test_what_lies_there_is_named_where_nothing_is_left(tmp_path: Path, write_picture: Write, read_sets: Read) -> None:
    write_picture(tmp_path / "set" / "a.png", caption=None)
    (tmp_path / "set" / "a.png.txt").write_text("x")
    (tmp_path / "set" / "metadata.jsonl").write_text('{"file_name": "a.png", "text": "x"}')
    with pytest.raises(DataError) as error:
        read_sets(_config(tmp_path / "set"))
    assert "1 caption file without a picture of that name: a.png.txt" in error.value.got
    assert f'the table metadata.jsonl is not read: set metadata = "{tmp_path / "set" / "metadata.jsonl"}"' in error.value.got


@pytest.mark.parametrize(
    ("name", "words"),
    [("a.png", "name the folder that the pictures are in"), ("*.png", "name the folder that the pictures are in"), ("a.zip", "unpack it")],
)
def test_a_file_in_place_of_a_folder(tmp_path: Path, write_picture: Write, read_sets: Read, name: str, words: str) -> None:
    write_picture(tmp_path / "set" / "a.png")
    (tmp_path / "set" / "a.zip").touch()
    with pytest.raises(DataError) as error:
        read_sets(_config(tmp_path / "set" / name))
    assert words in error.value.fix


def test_an_archive_in_the_folder(tmp_path: Path, read_sets: Read) -> None:
    (tmp_path / "set").mkdir()
    (tmp_path / "set" / "pictures.zip").write_bytes(b"PK\3\4")
    with pytest.raises(DataError) as error:
        read_sets(_config(tmp_path / "set"))
    assert error.value.fix == "archive: unpack it"


@pytest.mark.skipif(os.name == "nt", reason="no pipes among files there")
def test_pipes_are_not_waited_for(tmp_path: Path, write_picture: Write, read_sets: Read) -> None:
    for number, name in enumerate(("a", "b")):
        write_picture(tmp_path / "set" / f"{name}.png", seed=number)
    for name in ("pipe", "c.png"):
        os.mkfifo(tmp_path / "set" / name)
    (tmp_path / "set" / "b.txt").unlink()
    os.mkfifo(tmp_path / "set" / "b.txt")
    dataset = read_sets(_config(tmp_path / "set"))
    assert [one.path.name for one in dataset.examples] == ["a.png"]
    reasons = {item.path.name: item.reason.partition(":")[0] for item in dataset.set_aside}
    assert reasons == {"b.png": "unreadable file", "c.png": "unreadable file"}
