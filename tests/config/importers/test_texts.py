"""Files of other trainers are read whole, or one error says what is wrong with them."""

from __future__ import annotations

from itertools import pairwise
from pathlib import Path

import pytest

from weber.config.importers import texts
from weber.config.importers.texts import read_text, read_tree
from weber.errors import ConfigError


@pytest.mark.parametrize("encoding", ["utf-8", "utf-8-sig", "utf-16", "cp1252"])
def test_encodings_of_windows(tmp_path: Path, encoding: str) -> None:
    (tmp_path / "a.json").write_bytes('{"name": "Bücher"}'.encode(encoding))
    assert read_tree(tmp_path / "a.json") == {"name": "Bücher"}


@pytest.mark.parametrize(
    ("name", "text", "message"),
    [
        ("half.json", '{"a": 1, "b": [1, 2', "is not valid JSON at line 1"),
        ("half.yaml", "a: [1, 2\nb: 3", "is not valid YAML at line 2"),
        ("half.toml", "a = [1, 2", "is not valid TOML"),
        ("twice.yaml", "a: 1\nb: 2\na: 3\n", "the key a is given twice"),
        ("object.yaml", "a: !!python/object/apply:os.system ['true']\n", "is not valid YAML"),
        ("empty.json", "", "an empty file"),
        ("deep.json", "[" * 100_000, "nested too deeply"),
        (
            "bomb.yaml",
            "a: &a [x,x,x,x,x,x,x,x,x]\n" + "".join(f"{two}: &{two} [{','.join(['*' + one] * 9)}]\n" for one, two in pairwise("abcdefghi")),
            "more values than any file of settings",
        ),
    ],
)
def test_broken_files(tmp_path: Path, name: str, text: str, message: str) -> None:
    (tmp_path / name).write_text(text)
    with pytest.raises(ConfigError, match=message):
        read_tree(tmp_path / name)


def test_what_is_no_file_of_settings(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "model.bin").write_bytes(bytes(range(256)) * 4)
    with pytest.raises(ConfigError, match="not a text file"):
        read_text(tmp_path / "model.bin")
    with pytest.raises(ConfigError, match="there is no file"):
        read_text(tmp_path / "none.json")
    with pytest.raises(ConfigError, match="is a folder"):
        read_text(tmp_path)
    monkeypatch.setattr(texts, "MOST_BYTES", 100)
    (tmp_path / "large.json").write_text(" " * 200)
    with pytest.raises(ConfigError, match="too large"):
        read_text(tmp_path / "large.json")
