"""Libraries of prompts: JSON and TOML say the same, and what cannot be is refused in words."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from weber.config.library import LibraryPrompt, read_library
from weber.config.load import build_config
from weber.errors import ConfigError

TOML = """
cat = "a cat"
"red apple" = {prompt = "an apple", negative_prompt = "green", seed = 3, width = 64, height = 48, steps = 2, guidance = 2.0, cfg = 3.0}

[weak]
prompt = "a dog"
strength = 0.5
"""
TREE = {
    "cat": "a cat",
    "red apple": {
        "prompt": "an apple", "negative_prompt": "green", "seed": 3, "width": 64, "height": 48, "steps": 2, "guidance": 2.0, "cfg": 3.0
    },
    "weak": {"prompt": "a dog", "strength": 0.5},
}


def _write(tmp_path: Path, text: str, name: str = "prompts.json") -> Path:
    path = tmp_path / name
    path.write_text(text, encoding="utf-8")
    return path


def test_both_forms_are_read_in_their_order(tmp_path: Path) -> None:
    read = read_library(_write(tmp_path, TOML, "prompts.toml"), key="sampling.library")
    assert read == read_library(_write(tmp_path, json.dumps(TREE)), key="sampling.library")
    assert list(read) == ["cat", "red apple", "weak"]
    assert read["cat"] == LibraryPrompt(prompt="a cat") and read["weak"].strength == 0.5 and read["red apple"].width == 64


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ("{}", ["is empty"]),
        ("[1]", ["no nicknames", "[1]"]),
        ("{", ["not JSON", "prompts.json"]),
        ('{"a": "x", "a": "y"}', ["twice", "'a'"]),
        ('{"a": "x", "A": "y"}', ["case of letters", "'a' and 'A'"]),
        ('{"a/b": "x"}', ["name of a file", "'/'"]),
        ('{"..": "x"}', ["name of a file"]),
        ('{"": "x"}', ["name of a file"]),
        ('{"NUL": "x"}', ["name of a file", "'NUL'"]),
        ('{"%s": "x"}' % ("a" * 81), ["up to 80"]),
        ('{"a": 5}', ["a text, or a table", "5"]),
        ('{"a": ""}', ["prompt of a prompt in a library", "empty text"]),
        ('{"a": {"seed": 5}}', ["lacks its text", "'a'"]),
        ('{"a": {"prompt": "x", "negative": "y"}}', ["negative is no setting", "negative_prompt"]),
        ('{"a": {"prompt": "x", "stepps": 5}}', ["did you mean steps?"]),
        ('{"a": {"prompt": "x", "steps": 0}}', ["steps of a prompt", "steps = 0"]),
        ('{"a": {"prompt": "x", "seed": "5"}}', ["seed = '5'"]),
    ],
)
def test_what_cannot_be_is_one_message(tmp_path: Path, text: str, words: list[str]) -> None:
    with pytest.raises(ConfigError) as error:
        read_library(_write(tmp_path, text), key="sampling.library")
    for word in words:
        assert word in str(error.value), str(error.value)
    assert error.value.fix


def test_files_that_cannot_be_read_are_named(tmp_path: Path) -> None:
    for name, word in (("none.json", "cannot be read"), ("none.toml", "there is no file"), ("prompts.txt", "JSON or a TOML file")):
        with pytest.raises(ConfigError, match=word):
            read_library(tmp_path / name, key="sampling.library")


def test_a_library_alone_is_something_to_paint() -> None:
    config = build_config({"data": [{"path": "a"}], "sampling": {"library": "prompts.toml", "steps": 3}})
    assert config.sampling.paints and config.sampling.library == Path("prompts.toml")
