"""Captions of one picture."""

from __future__ import annotations

from pathlib import Path

import pytest

from weber.config.data import DataConfig
from weber.data.captions import build_captions, read_captions
from weber.errors import DataError


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
    assert read_captions(data) == captions


@pytest.mark.parametrize("data", [b"", b" \n\r\n\t", b"\xef\xbb\xbf\n"])
def test_empty(data: bytes) -> None:
    with pytest.raises(DataError, match=r"^caption file is empty$"):
        read_captions(data)


@pytest.mark.parametrize("data", ["ein Kätzchen".encode("latin-1"), "a cat".encode("utf-16"), b"\xff\xd8\xff\xe0", b"a\0b"])
def test_not_text(data: bytes) -> None:
    with pytest.raises(DataError, match=r"^caption file is not UTF-8 text$"):
        read_captions(data)


def test_from_the_set() -> None:
    picture = Path("pictures/a_red_cat.v2.JPG")
    folder = Path("pictures")
    assert build_captions(picture, DataConfig(path=folder, captions="filename")) == ("a red cat.v2",)
    assert build_captions(picture, DataConfig(path=folder, captions="none")) == ("",)
    assert build_captions(picture, DataConfig(path=folder, captions="instance", instance_prompt="sks cat")) == ("sks cat",)
    assert build_captions(picture, DataConfig(path=folder, captions="instance", instance_prompt=["a", "b"])) == ("a", "b")
