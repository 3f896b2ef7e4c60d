"""Wildcards: choices in braces, and lines of lists."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import pytest

from weber.config.captions import CaptionStepConfig
from weber.config.data import DataConfig
from weber.data.braces import choose_braces
from weber.data.chances import list_outcomes
from weber.data.dataset import Dataset
from weber.data.wildcards import Wildcards, load_wildcards
from weber.errors import DataError

Read = Callable[..., Dataset]
Write = Callable[..., Path]


def _list(wildcards: Wildcards, text: str) -> dict[str, float]:
    found: dict[str, float] = {}
    for outcome, share in list_outcomes(lambda chance: wildcards.expand(text, chance), most=100) or []:
        found[outcome] = found.get(outcome, 0) + share
    return found


@pytest.mark.parametrize(
    ("text", "outcomes"),
    [
        ("a {red|blue} cat", {"a red cat": 0.5, "a blue cat": 0.5}),
        ("{a|b} {x|{y|z}}", {"a x": 0.25, "a y": 0.125, "a z": 0.125, "b x": 0.25, "b y": 0.125, "b z": 0.125}),
        ("a {big |}cat", {"a big cat": 0.5, "a cat": 0.5}),
        ("a { red | blue } cat", {"a red cat": 0.5, "a blue cat": 0.5}),
        ("{{a|b}} c", {"{a|b} c": 1}),
        ("{a} { b", {"{a} { b": 1}),
        ("a|b {c|d", {"a|b {c|d": 1}),
        ("} {a|b}", {"} a": 0.5, "} b": 0.5}),
        ('{"style": "a|b"}', {'{"style": "a|b"}': 1}),
        ("snake_case __ x", {"snake_case __ x": 1}),
    ],
)
def test_braces(text: str, outcomes: dict[str, float]) -> None:
    assert _list(Wildcards({}), text) == pytest.approx(outcomes)


@pytest.mark.parametrize("text", ["{2::red|blue} cat", "{0.5::a|b}", "{2$$a|b|c}"])
def test_weights_of_other_programs_are_refused(text: str) -> None:
    with pytest.raises(DataError, match=r"^wildcard with a weight or a number: \{"):
        choose_braces(text, None)  # type: ignore[arg-type]
    with pytest.raises(DataError, match="more than 64 braces are open"):
        choose_braces("{a" * 100 + "}" * 100, None)  # type: ignore[arg-type]


def _write(folder: Path, **lists: str) -> Path:
    for name, text in lists.items():
        path = folder / f"{name.replace('__', '/')}.txt"
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(text, encoding="utf-8")
    return folder


def test_lists(tmp_path: Path) -> None:
    folder = _write(tmp_path / "lists", animal="cat\r\ndog\n\n# a remark\n__bird__", bird="{red|blue} bird", more__Sea="fish")
    wildcards = load_wildcards(folder, key="data.0.caption_steps.0.folder")
    assert _list(wildcards, "a __animal__") == pytest.approx({"a cat": 1 / 3, "a dog": 1 / 3, "a red bird": 1 / 6, "a blue bird": 1 / 6})
    assert _list(wildcards, "__more/sea__") == {"fish": 1}
    assert _list(wildcards, "{__bird__|x}") == pytest.approx({"red bird": 0.25, "blue bird": 0.25, "x": 0.5})
    with pytest.raises(DataError, match=r"^unknown wildcard: __plant__, but .*lists has animal, bird, more/sea$"):
        _list(wildcards, "a __plant__")
    with pytest.raises(DataError, match=r"^unknown wildcard: __plant__, but the step names no folder$"):
        _list(Wildcards({}), "a __plant__")


def test_lists_that_name_each_other(tmp_path: Path) -> None:
    wildcards = load_wildcards(_write(tmp_path / "lists", a="__b__", b="x __a__"), key="k")
    with pytest.raises(DataError, match="^wildcards without end"):
        _list(wildcards, "__a__")


@pytest.mark.parametrize(
    ("lists", "words"),
    [
        ({}, "has no lists"),
        ({"empty": "\n# nothing\n"}, r"empty\.txt is empty"),
    ],
)
def test_lists_that_cannot_be_used(tmp_path: Path, lists: dict[str, str], words: str) -> None:
    folder = _write(tmp_path / "lists", **lists)
    folder.mkdir(exist_ok=True)
    with pytest.raises(DataError, match=words):
        load_wildcards(folder, key="data.0.caption_steps.0.folder")


def test_lists_of_other_encodings_and_folders_that_are_not_there(tmp_path: Path) -> None:
    (tmp_path / "a.txt").write_bytes("Kätzchen".encode("latin-1"))
    with pytest.raises(DataError, match="is not UTF-8 text"):
        load_wildcards(tmp_path, key="k")
    with pytest.raises(DataError, match=r'^data\.0\.caption_steps\.0\.folder = ".*" cannot be read'):
        load_wildcards(tmp_path / "none", key="data.0.caption_steps.0.folder")


def test_an_unknown_name_sets_one_picture_aside(tmp_path: Path, write_picture: Write, read_sets: Read) -> None:
    folder = _write(tmp_path / "lists", animal="cat\ndog")
    write_picture(tmp_path / "set" / "a.png", caption="an __animal__")
    write_picture(tmp_path / "set" / "b.png", seed=1, caption="a __plant__")
    steps = [CaptionStepConfig(kind="wildcards", folder=folder)]
    dataset = read_sets(DataConfig(path=tmp_path / "set", resolution=64, bucket_step=16, caption_steps=steps))
    assert [one.captions for one in dataset.examples] == [("an cat", "an dog")]
    assert [one.reason.partition(":")[0] for one in dataset.set_aside] == ["unknown wildcard"]
