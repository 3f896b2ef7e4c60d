"""TOML is written so that it reads back equal, and errors in a file name the line and the fix."""

from __future__ import annotations

import tomllib
from datetime import date
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from weber.config.toml import read_toml, write_toml, write_value
from weber.errors import ConfigError

VALUES = st.recursive(
    st.booleans() | st.integers() | st.floats(allow_nan=False, allow_infinity=False) | st.text(), lambda inner: st.lists(inner, max_size=4)
)


@given(VALUES)
def test_a_written_value_reads_back_equal(value: object) -> None:
    read = tomllib.loads(f"value = {write_value(value)}")["value"]
    assert read == value
    assert type(read) is type(value)


@given(st.dictionaries(st.text(min_size=1), VALUES, max_size=4))
def test_an_inline_table_reads_back_equal(table: dict[str, object]) -> None:
    assert tomllib.loads(f"value = {write_value(table)}")["value"] == table


def test_a_tree_is_written_section_by_section_without_what_is_none() -> None:
    text = write_toml({"data": [{"path": Path("a/b"), "name": None}, {"path": Path("c")}], "train": {"steps": 3, "betas": (0.9, 0.99)}})
    assert text == '[[data]]\npath = "a/b"\n\n[[data]]\npath = "c"\n\n[train]\nsteps = 3\nbetas = [0.9, 0.99]\n'


def test_a_type_that_toml_does_not_know_is_refused() -> None:
    assert write_value(date(2026, 5, 1)) == "2026-05-01"
    with pytest.raises(TypeError, match="object"):
        write_value(object())


@pytest.mark.parametrize(
    ("text", "line", "words"),
    [
        ("[train]\nsteps 3\n", 2, "key = value"),
        ("[train]\nsteps = ten\n", 2, "quotes"),
        ("[train]\nsteps = 3\nsteps = 4\n", 3, "already given"),
        ("[train]\nsteps = 3\n[train]\nseed = 4\n", 3, "already given"),
        ('[[data]]\npath = "C:\\pictures"\n', 2, "single quotes"),
        ('[[data]]\npath = "C:\\Users\\me"\n', 2, "single quotes"),
        ('[[data]]\npath = "pictures\n', 2, "quote"),
        ('[sampling]\nprompts = ["a", "b"\n', 2, "]"),
        ('[data]\npath = "a"\n[[data]]\npath = "b"\n', 3, "[[data]]"),
        ("train: 5\n", 1, "key = value"),
        ('{"train": 5}\n', 1, "JSON"),
        ("steps = True\n", 1, "true"),
        ("[train]\nsteps = 3 seed = 4\n", 2, "one setting per line"),
    ],
)
def test_wrong_syntax_is_one_message_with_file_line_and_fix(tmp_path: Path, text: str, line: int, words: str) -> None:
    path = tmp_path / "run.toml"
    path.write_text(text, encoding="utf-8")
    with pytest.raises(ConfigError) as caught:
        read_toml(path)
    assert f"{path} is not valid TOML at line {line}, column " in caught.value.what
    assert text.splitlines()[line - 1] in caught.value.got or caught.value.got == "the end of the file"
    assert words in caught.value.fix


@pytest.mark.parametrize(("name", "format_name"), [("run.yaml", "YAML"), ("run.json", "JSON")])
def test_a_file_in_another_format_is_named(tmp_path: Path, name: str, format_name: str) -> None:
    (tmp_path / name).write_text("a: 1\n", encoding="utf-8")
    with pytest.raises(ConfigError, match=f"looks like {format_name}"):
        read_toml(tmp_path / name)


def test_what_windows_editors_write_is_read(tmp_path: Path) -> None:
    path = tmp_path / "run.toml"
    path.write_bytes(b"\xef\xbb\xbf[train]\r\nsteps = 3\r\n")
    assert read_toml(path) == {"train": {"steps": 3}}


def test_no_file_names_the_nearest_one(tmp_path: Path) -> None:
    (tmp_path / "run.toml").write_text("[train]\n", encoding="utf-8")
    with pytest.raises(ConfigError) as caught:
        read_toml(tmp_path / "rum.toml")
    assert caught.value.what == f"there is no file {tmp_path / 'rum.toml'}"
    assert caught.value.fix == f"did you mean {tmp_path / 'run.toml'}?"
    with pytest.raises(ConfigError, match="check the path"):
        read_toml(tmp_path / "nowhere" / "run.toml")


def test_a_folder_names_the_file_in_it(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match="is a folder(.|\n)*holds none"):
        read_toml(tmp_path)
    (tmp_path / "cat.toml").write_text("[train]\n", encoding="utf-8")
    with pytest.raises(ConfigError) as caught:
        read_toml(tmp_path)
    assert str(tmp_path / "cat.toml") in caught.value.fix


def test_a_picture_is_not_a_config(tmp_path: Path) -> None:
    (tmp_path / "cat.png").write_bytes(b"\x89PNG\r\n\x1a\n\x00\x00")
    with pytest.raises(ConfigError) as caught:
        read_toml(tmp_path / "cat.png")
    assert (caught.value.what, caught.value.got) == (f"{tmp_path / 'cat.png'} is not a text file in UTF-8", "byte 0x89 at position 0")
    assert "TOML" in caught.value.fix


@pytest.mark.parametrize("text", ["", "\n\n", "# nothing yet\n"])
def test_an_empty_file_says_what_belongs_into_it(tmp_path: Path, text: str) -> None:
    (tmp_path / "run.toml").write_text(text, encoding="utf-8")
    with pytest.raises(ConfigError) as caught:
        read_toml(tmp_path / "run.toml")
    assert caught.value.what == f"{tmp_path / 'run.toml'} is empty"
    assert "[[data]]" in caught.value.fix


@pytest.mark.parametrize(
    ("line", "right"), [("steps = 1k", "steps = 1000"), ("rate = 5%  # of all", "rate = 0.05"), ("a = 1*10^-4", "a = 0.0001")]
)
def test_a_number_with_more_than_digits_is_answered_with_one(line: str, right: str, tmp_path: Path) -> None:
    (tmp_path / "run.toml").write_text(f"[train]\n{line}\n", encoding="utf-8")
    with pytest.raises(ConfigError) as caught:
        read_toml(tmp_path / "run.toml")
    assert caught.value.fix == f"write {right}"
