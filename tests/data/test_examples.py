"""From sets to examples: the broken-file zoo, the incremental start, and errors of a set."""

from __future__ import annotations

import os
import sys
import zlib
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from weber.config.data import DataConfig
from weber.data.buckets import Bucket
from weber.data.crops import Crop
from weber.data.dataset import Dataset
from weber.data.set_aside import list_reasons
from weber.errors import ConfigError, DataError, WeberError

Read = Callable[..., Dataset]
Write = Callable[..., Path]


def _config(path: Path, **keys: Any) -> DataConfig:
    return DataConfig(path=path, **{"resolution": 64, "bucket_step": 16, **keys})


def _names(dataset: Dataset) -> list[str]:
    return [example.path.name for example in dataset.examples]


# --- what becomes an example


def test_an_example(tmp_path: Path, write_picture: Write, read_sets: Read) -> None:
    path = write_picture(tmp_path / "set" / "a.png", 160, 96, caption="one\ntwo")
    (example,) = read_sets(_config(tmp_path / "set", repeats=3)).examples
    assert (example.set_name, example.path, example.width, example.height) == ("set", path, 160, 96)
    assert (example.captions, example.repeats) == (("one", "two"), 3)
    assert example.bucket == Bucket(80, 48)
    assert example.crops == (Crop(80, 48, 0, 0, 80, 48),)
    assert (example.upscaled, example.cut_fraction) == (False, 0.0)


def test_order_is_that_of_the_sets_and_their_names(tmp_path: Path, write_picture: Write, read_sets: Read) -> None:
    for name in ["z/b.png", "z/a/c.png", "z/B.PNG", "y/k.jpg", "y/.hidden.png", "y/.trash/x.png"]:
        write_picture(tmp_path / name)
    dataset = read_sets(_config(tmp_path / "z"), _config(tmp_path / "y"))
    assert [(example.set_name, example.path.name) for example in dataset.examples] == [
        ("z", "B.PNG"),
        ("z", "c.png"),
        ("z", "b.png"),
        ("y", "k.jpg"),
    ]
    assert _names(read_sets(_config(tmp_path / "z", recursive=False))) == ["B.PNG", "b.png"]


def test_one_folder_in_two_sets(tmp_path: Path, write_picture: Write, read_sets: Read) -> None:
    write_picture(tmp_path / "set" / "a.png", 128, 128)
    dataset = read_sets(_config(tmp_path / "set", name="small"), _config(tmp_path / "set", name="large", resolution=128))
    assert [(example.set_name, example.bucket) for example in dataset.examples] == [("small", Bucket(64, 64)), ("large", Bucket(128, 128))]
    assert dataset.num_opened == 1  # captions are always read


def test_pictures_of_one_stem_share_a_caption_file(tmp_path: Path, write_picture: Write, read_sets: Read) -> None:
    write_picture(tmp_path / "a.png", seed=1)
    write_picture(tmp_path / "a.jpg", seed=2, caption=None)
    (tmp_path / "a.txt").rename(tmp_path / "a.TXT")
    assert [example.captions for example in read_sets(_config(tmp_path)).examples] == [("a picture",)] * 2


@pytest.mark.parametrize(
    ("keys", "captions"),
    [
        ({"captions": "filename"}, ("a cat",)),
        ({"captions": "none"}, ("",)),
        ({"captions": "instance", "instance_prompt": ["x", "y"]}, ("x", "y")),
    ],
)
def test_captions_without_files(
    tmp_path: Path, write_picture: Write, read_sets: Read, keys: dict[str, Any], captions: tuple[str, ...]
) -> None:
    write_picture(tmp_path / "a_cat.png", caption="not this")
    dataset = read_sets(_config(tmp_path, **keys))
    assert dataset.examples[0].captions == captions and dataset.num_opened == 1


def test_random_crops_depend_on_content_and_seed_alone(tmp_path: Path, write_picture: Write, read_sets: Read) -> None:
    path = write_picture(tmp_path / "set" / "a.png", 256, 64, caption=None)
    config = _config(tmp_path / "set", captions="none", crop="random", aspect="square")
    (before,) = read_sets(config).examples
    path.rename(path.with_name("b.png"))
    (after,) = read_sets(config).examples
    assert after.crops == before.crops and len(before.crops) == 4
    assert read_sets(config, seed=2).examples[0].crops != before.crops
    assert len(read_sets(config.model_copy(update={"num_crops": 7})).examples[0].crops) == 7


# --- only new and changed files are opened


def test_the_next_start_opens_only_what_changed(tmp_path: Path, write_picture: Write, read_sets: Read) -> None:
    folder = tmp_path / "set"
    for n in range(10):
        write_picture(folder / f"{n}.png", seed=n)
    first = read_sets(_config(folder))
    assert first.num_opened == 10
    again = read_sets(_config(folder))
    assert (again.examples, again.num_opened) == (first.examples, 0)
    assert read_sets(_config(folder, resolution=32, crop="corner")).num_opened == 0

    (folder / "3.txt").write_text("another caption", encoding="utf-8")
    edited = read_sets(_config(folder))
    assert edited.num_opened == 0
    assert [example.captions for example in edited.examples] == [("another caption",) if n == 3 else ("a picture",) for n in range(10)]

    write_picture(folder / "4.png", 80, 80, seed=99)
    write_picture(folder / "new.png", seed=100)
    changed = read_sets(_config(folder))
    assert changed.num_opened == 2
    same = [example.path.name for example in changed.examples if example in edited.examples]
    assert same == [f"{n}.png" for n in range(10) if n != 4]


# --- the broken-file zoo


def _break(folder: Path, write: Write) -> dict[str, str]:
    """Write broken files; returns each one's reason."""
    folder.mkdir(exist_ok=True)
    jpeg, png = write(folder / "cut.jpg").read_bytes(), write(folder / "cut.png").read_bytes()
    (folder / "cut.jpg").write_bytes(jpeg[: len(jpeg) // 2])
    (folder / "cut.png").write_bytes(png[: len(png) // 2])
    (folder / "empty.webp").touch()
    (folder / "text.png").write_text("a cat", encoding="utf-8")
    write(folder / "small.png", 15, 64)
    write(folder / "long.png", 400, 64)
    write(folder / "no_caption.png", caption=None)
    write(folder / "empty_caption.png", caption=" \n")
    write(folder / "binary_caption.png").with_suffix(".txt").write_bytes(bytes(range(256)))
    bomb = bytearray(png)
    bomb[16:24] = (60_000).to_bytes(4, "big") * 2
    bomb[29:33] = zlib.crc32(bomb[12:29]).to_bytes(4, "big")
    (folder / "bomb.png").write_bytes(bomb)
    return {
        "binary_caption.png": "caption file is not UTF-8 text: binary_caption.txt",
        "bomb.png": "too many pixels: ",
        "cut.jpg": "damaged picture: ",
        "cut.png": "damaged picture: ",
        "empty.webp": "empty file",
        "empty_caption.png": "caption file is empty: empty_caption.txt",
        "long.png": "too long: 400 x 64 pixels, max_aspect is 4",
        "no_caption.png": "no caption file: no_caption.txt",
        "small.png": "too small: 15 x 64 pixels, minimum_edge is 16",
        "text.png": "not a picture: no known picture format",
    }


def test_broken_files_are_set_aside_and_the_rest_goes_on(tmp_path: Path, write_picture: Write, read_sets: Read) -> None:
    folder = tmp_path / "set"
    expected = _break(folder, write_picture)
    write_picture(folder / "good.png")
    for dataset in (read_sets(_config(folder)), read_sets(_config(folder))):  # the second knows the reasons from the index
        assert _names(dataset) == ["good.png"]
        assert [item.path.name for item in dataset.set_aside] == list(expected)
        for item in dataset.set_aside:
            assert item.set_name == "set" and item.reason.startswith(expected[item.path.name])
            assert "\n" not in item.reason
    assert dataset.num_opened == 0
    kinds = {kind: len(items) for kind, items in list_reasons(dataset.set_aside)}
    assert kinds["damaged picture"] == 2 and sum(kinds.values()) == len(expected)


def test_a_mended_file_comes_back(tmp_path: Path, write_picture: Write, read_sets: Read) -> None:
    _break(tmp_path / "set", write_picture)
    write_picture(tmp_path / "set" / "good.png")
    read_sets(_config(tmp_path / "set"))
    write_picture(tmp_path / "set" / "cut.jpg", seed=5)
    (tmp_path / "set" / "no_caption.txt").write_text("now", encoding="utf-8")
    assert _names(read_sets(_config(tmp_path / "set"))) == ["cut.jpg", "good.png", "no_caption.png"]


@pytest.mark.skipif(sys.platform != "linux", reason="other systems refuse such names")
def test_names_that_are_not_text_are_set_aside(tmp_path: Path, write_picture: Write, read_sets: Read) -> None:
    good = write_picture(tmp_path / "set" / "good.png")
    os.link(good, os.fsencode(good.parent) + b"/k\xe4tzchen.png")
    dataset = read_sets(_config(tmp_path / "set"))
    assert _names(dataset) == ["good.png"]
    assert [(item.path.name, item.reason) for item in dataset.set_aside] == [("k?tzchen.png", "file name is not text: rename the file")]


@pytest.mark.skipif(os.name == "nt", reason="making links needs rights on Windows")
def test_a_link_to_nothing_is_set_aside(tmp_path: Path, write_picture: Write, read_sets: Read) -> None:
    write_picture(tmp_path / "set" / "good.png")
    (tmp_path / "set" / "link.png").symlink_to(tmp_path / "nothing.png")
    (item,) = read_sets(_config(tmp_path / "set")).set_aside
    assert (item.path.name, item.reason) == ("link.png", "unreadable file: No such file or directory")


# --- errors


def test_a_set_in_which_nothing_is_left_is_an_error(tmp_path: Path, write_picture: Write, read_sets: Read) -> None:
    _break(tmp_path / "set", write_picture)
    write_picture(tmp_path / "other" / "good.png")
    with pytest.raises(DataError) as error:
        read_sets(_config(tmp_path / "other"), _config(tmp_path / "set"))
    lines = str(error.value).splitlines()
    assert lines[0] == 'no picture of the set "set" can be used; reasons:'
    assert lines[1] == "  2 x damaged picture" and "cut.jpg: damaged picture: " in lines[2]
    assert "  1 x too long" in lines and any("long.png: too long: 400 x 64 pixels, max_aspect is 4" in line for line in lines)
    assert error.value.got == "10 pictures, all set aside"


@pytest.mark.parametrize(
    ("path", "keys", "kind", "words"),
    [
        ("missing", {}, DataError, ["data.1.path", "is not a folder", "No such file", "missing"]),
        ("file.png", {}, DataError, ["data.1.path", "is not a folder", "got: a file"]),
        ("nul\0", {}, DataError, ["data.1.path", "is not a folder", "null byte"]),
        ("empty", {}, DataError, ["has no pictures", "got: no files", ".webp"]),
        ("texts", {}, DataError, ["has no pictures", "got: files: 2 x .txt, 1 x no ending, 1 x .npz", "name the folder"]),
        ("deep", {"recursive": False}, DataError, ["has no pictures", "set recursive = true"]),
        ("good", {"bucket_step": 24}, ConfigError, ["data.1.bucket_step = 24", "16", "set data.1.bucket_step = 32"]),
        ("good", {"bucket_step": 8}, ConfigError, ["data.1.bucket_step = 8", "set data.1.bucket_step = 16"]),
        ("good", {"resolution": 8}, ConfigError, ["data.1.resolution = 8 (area)", "8 x 8 pixels", "raise data.1.resolution"]),
        ("good", {"resolution": 48, "bucket_step": 64}, ConfigError, ["data.1.resolution = 48", "or lower data.1.bucket_step"]),
        (
            "good",
            {"resolution": 0.0001, "resolution_type": "megapixels"},
            ConfigError,
            ["data.1.resolution = 0.0001 (megapixels)", "10 x 10 pixels"],
        ),
        ("good", {"resolution": 1.0}, ConfigError, ["data.1.resolution = 1 (area)", 'resolution_type = "megapixels"']),
        (
            "good",
            {"resolution": 1024, "resolution_type": "megapixels"},
            ConfigError,
            ["data.1.resolution = 1024 megapixels", 'resolution_type = "area"'],
        ),
    ],
)
def test_errors_name_the_key_and_the_fix(
    tmp_path: Path, write_picture: Write, read_sets: Read, path: str, keys: dict[str, Any], kind: type[WeberError], words: list[str]
) -> None:
    write_picture(tmp_path / "good" / "a.png")
    write_picture(tmp_path / "deep" / "inside" / "a.png")
    (tmp_path / "file.png").touch()
    (tmp_path / "empty").mkdir()
    (tmp_path / "texts").mkdir()
    for name in ["a.txt", "b.TXT", "c.npz", "LICENSE"]:
        (tmp_path / "texts" / name).touch()
    with pytest.raises(kind) as error:
        read_sets(_config(tmp_path / "good"), _config(tmp_path / path, **keys))
    assert [word for word in words if word not in str(error.value)] == []


def test_progress_names_the_set(tmp_path: Path, write_picture: Write, read_sets: Read) -> None:
    write_picture(tmp_path / "cats" / "a.png")
    said: list[tuple[str, int, int]] = []
    read_sets(_config(tmp_path / "cats"), progress=lambda what, done, total: said.append((what, done, total)))
    assert said == [("reading the captions of cats", 1, 1), ("looking at the pictures of cats", 1, 1)]
