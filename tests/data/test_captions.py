"""Captions of one picture."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from weber.config.data import CaptionPer, DataConfig
from weber.data.captions import read_captions, read_folder_name, read_keyed_captions
from weber.data.dataset import Dataset
from weber.errors import DataError

Read = Callable[..., Dataset]
Write = Callable[..., Path]


@pytest.mark.parametrize(
    ("data", "captions"),
    [
        (b"a cat", ("a cat",)),
        (b"  a cat \n\n\t\n a dog\n", ("a cat", "a dog")),
        (b"a cat\r\na dog\r\n", ("a cat", "a dog")),
        (b"a cat\ra dog", ("a cat", "a dog")),
        (b"\xef\xbb\xbfa cat", ("a cat",)),
        ("ein Kätzchen 🐈".encode(), ("ein Kätzchen 🐈",)),
        ("wait\u0085 what\u2028next".encode(), ("wait\u0085 what\u2028next",)),
        (b"twice\ntwice", ("twice", "twice")),
    ],
)
def test_lines(data: bytes, captions: tuple[str, ...]) -> None:
    assert read_captions(data).captions == captions


@pytest.mark.parametrize("data", [b"", b" \n\r\n\t", b"\xef\xbb\xbf\n"])
def test_empty(data: bytes) -> None:
    with pytest.raises(DataError, match=r"^caption file is empty$"):
        read_captions(data)


@pytest.mark.parametrize("data", ["ein Kätzchen".encode("latin-1"), "a cat".encode("utf-16"), b"\xff\xd8\xff\xe0", b"a\0b"])
def test_not_text(data: bytes) -> None:
    with pytest.raises(DataError, match=r"^caption file is not UTF-8 text$"):
        read_captions(data)


JSON = '{\n "scene": "a harbor",\n "style": "photo"\n}\n'


@pytest.mark.parametrize(
    ("text", "per", "captions", "is_json"),
    [
        ("a cat\n\nand a dog\n", None, ("a cat", "and a dog"), False),
        ("a cat\r\n\r\nand a dog\r\n", "file", ("a cat\n\nand a dog",), False),
        (JSON, None, (JSON.strip(),), True),
        (JSON, "file", (JSON.strip(),), True),
        (JSON, "line", ("{", '"scene": "a harbor",', '"style": "photo"', "}"), True),
        ('["a cat",\n"a dog"]', None, ('["a cat",\n"a dog"]',), True),
        ('{"scene": "a harbor"}', None, ('{"scene": "a harbor"}',), False),  # a line as any other
        ("{red|blue} hat\n{a|b}", None, ("{red|blue} hat", "{a|b}"), False),
        ("[photo] a\n[painting] b", "line", ("[photo] a", "[painting] b"), False),
    ],
)
def test_one_caption_per_line_or_per_file(text: str, per: CaptionPer | None, captions: tuple[str, ...], is_json: bool) -> None:
    found = read_captions(text.encode(), per)
    assert (found.captions, found.is_json) == (captions, is_json)


def test_marks_without_width_are_no_caption() -> None:
    assert read_captions("\u200b\n\u00a0\na cat\n\ufeff".encode()).captions == ("a cat",)
    with pytest.raises(DataError, match=r"^caption file is empty$"):
        read_captions("\u200b\n".encode())


def test_broken_json_is_said() -> None:
    broken = JSON.replace(",", "")
    with pytest.raises(DataError, match=r"^caption file is broken JSON: line 3: Expecting"):
        read_captions(broken.encode())
    assert read_captions(broken.encode(), "file").captions == (broken.strip(),)


def test_a_book_is_no_caption() -> None:
    with pytest.raises(DataError, match=r"^caption file is too large: 2,097,152 bytes$"):
        read_captions(b"x\n" * 2**20)


def test_both_endings_and_a_fallback(tmp_path: Path, write_picture: Write, read_sets: Read) -> None:
    folder = tmp_path / "set"
    for number, name in enumerate("abcd"):
        write_picture(folder / f"{name}.png", seed=number, caption=None)
    (folder / "a.txt").write_text("from txt")
    (folder / "a.caption").write_text("from caption")
    (folder / "b.CAPTION").write_text("b")
    (folder / "c.txt").write_text(" \n")
    (folder / "other.txt").write_text("whose?")
    config = DataConfig(path=folder, resolution=64, bucket_step=16)
    dataset = read_sets(config)
    assert [example.captions for example in dataset.examples] == [("from txt",), ("b",)]
    assert [item.reason for item in dataset.set_aside] == ["caption file is empty: c.txt", "no caption file: d.txt"]
    assert dataset.notes == (
        "set: 1 caption file without a picture of that name: other.txt",
        "set: 1 caption file not read beside one that ends in .txt: a.caption",
    )
    dataset = read_sets(config.model_copy(update={"caption_fallback": "a picture"}))
    assert [example.captions for example in dataset.examples] == [("from txt",), ("b",), ("a picture",), ("a picture",)]


def test_a_missing_caption_says_what_helps(tmp_path: Path, write_picture: Write, read_sets: Read) -> None:
    write_picture(tmp_path / "set" / "a.png", caption=None)
    with pytest.raises(DataError) as error:
        read_sets(DataConfig(path=tmp_path / "set", resolution=64, bucket_step=16))
    assert 'captions = "instance"' in error.value.fix and "caption_fallback" in error.value.fix


def test_files_of_json_are_named(tmp_path: Path, write_picture: Write, read_sets: Read) -> None:
    write_picture(tmp_path / "set" / "a.png", caption=JSON)
    config = DataConfig(path=tmp_path / "set", resolution=64, bucket_step=16)
    said = "set: 1 caption file (a.txt) in several lines that are JSON as a whole; "
    assert read_sets(config).notes == (said + "each is one caption",)
    assert read_sets(config.model_copy(update={"caption_per": "file"})).notes == ()
    dataset = read_sets(config.model_copy(update={"caption_per": "line"}))
    assert dataset.notes == (said + 'each of their lines is a caption: set caption_per = "file"',)
    assert dataset.examples[0].captions[0] == "{"


@pytest.mark.parametrize(
    ("keys", "words"),
    [
        ({"caption_per": "file", "captions": "none"}, 'caption_per has no effect with captions = "none"'),
        ({"caption_fallback": "x", "captions": "filename"}, 'caption_fallback has no effect with captions = "filename"'),
    ],
)
def test_what_cannot_act_is_refused(keys: dict[str, Any], words: str) -> None:
    with pytest.raises(ValueError, match=words):
        DataConfig(path=Path("pictures"), **keys)


@pytest.mark.parametrize(
    ("text", "keys", "places"),
    [
        ('{"caption": "a cat", "text": "b"}', (), (("a cat",),)),
        ('{"Prompt": [" a cat ", "", "a dog"]}', (), (("a cat", "a dog"),)),
        ('{"long": "a", "short": ["b", "c"], "n": 1}', ("long", "short", "none"), (("a",), ("b", "c"), ())),
        ('{"long": null, "short": "b"}', ("long", "short"), ((), ("b",))),
    ],
)
def test_captions_under_names(text: str, keys: tuple[str, ...], places: tuple[tuple[str, ...], ...]) -> None:
    found = read_keyed_captions(text.encode(), keys)
    assert found.places == places and found.captions == next(place for place in places if place)


@pytest.mark.parametrize(
    ("text", "reason"),
    [
        ("", "caption file is empty"),
        ("{", "caption file is no JSON: line 1"),
        ('["a"]', "caption file is no table of names"),
        ('{"tags": "a"}', "caption file has no caption: nothing under 'caption', 'text', 'prompt', 'instruction', only under 'tags'"),
        ('{"caption": {"a": 1}}', "caption file has no text under its name: 'caption' holds {\"a\": 1}"),
        ('{"caption": " "}', "caption file has no caption"),
    ],
)
def test_captions_that_are_not_under_names(text: str, reason: str) -> None:
    with pytest.raises(DataError) as caught:
        read_keyed_captions(text.encode(), ())
    assert caught.value.what.startswith(reason)


@pytest.mark.parametrize(
    ("name", "words"), [("10_sks dog", "sks dog"), ("0_x", "0 x"), ("my_cats", "my cats"), ("2024_summer", "2024 summer")]
)
def test_names_of_folders(name: str, words: str) -> None:
    assert read_folder_name(name) == words
