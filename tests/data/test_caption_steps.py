"""What each kind of step does to a caption."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from weber.config.captions import STEP_ROWS, CaptionStepConfig
from weber.config.data import DataConfig
from weber.data.caption_steps import Step, Steps, build_steps
from weber.data.chances import Drawn, list_outcomes
from weber.data.tags import split_tags
from weber.errors import DataError


def _steps(*steps: dict[str, Any]) -> Steps:
    built = build_steps(DataConfig(path=Path("x"), caption_steps=[CaptionStepConfig(**one) for one in steps]), key="data.0")
    assert built is not None
    return built


def _run(text: str, *steps: dict[str, Any], seed: int = 0) -> str:
    return _steps(*steps).run(text, Drawn(seed))


def _list(text: str, *steps: dict[str, Any]) -> set[str]:
    return {outcome for outcome, _ in list_outcomes(lambda chance: _steps(*steps).run(text, chance), most=1000) or []}


PLAIN = [
    ({"kind": "prefix", "text": "photo of"}, "a cat", "photo of a cat"),
    ({"kind": "prefix", "text": "TOK, "}, "a cat", "TOK, a cat"),
    ({"kind": "prefix", "text": "photo of"}, "", "photo of"),
    ({"kind": "suffix", "text": ", best quality"}, "a cat", "a cat, best quality"),
    ({"kind": "suffix", "text": "in oil"}, "a cat", "a cat in oil"),
    ({"kind": "suffix", "text": ", best quality"}, "", "best quality"),
    ({"kind": "trigger", "text": "TOK"}, "a cat", "TOK, a cat"),
    ({"kind": "trigger", "text": "TOK", "separator": " "}, "a cat", "TOK a cat"),
    ({"kind": "trigger", "text": "TOK", "place": "end"}, "a cat", "a cat, TOK"),
    ({"kind": "trigger", "text": "TOK"}, "", "TOK"),
    ({"kind": "trigger", "text": "TOK"}, "a TOK cat", "a TOK cat"),
    ({"kind": "trigger", "text": "TOK"}, "a tok cat", "a TOK cat"),
    ({"kind": "trigger", "text": "Rose", "ignore_case": False}, "a rose", "Rose, a rose"),
    ({"kind": "trigger", "text": "cat"}, "a category", "cat, a category"),
    ({"kind": "trigger", "text": "TOK"}, "a [trigger] cat", "a TOK cat"),
    ({"kind": "trigger", "text": "sks style"}, "in SKS Style", "in sks style"),
    ({"kind": "trigger", "text": "猫"}, "黒猫がいる", "黒猫がいる"),
    ({"kind": "trigger", "text": r"a\1"}, "x", r"a\1, x"),
    ({"kind": "replace", "find": "_", "replace_with": " "}, "red_cat", "red cat"),
    ({"kind": "replace", "find": "cat"}, "a cat", "a"),
    ({"kind": "replace", "find": "cat", "replace_with": "dog"}, "Cat category", "Cat dogegory"),
    ({"kind": "replace", "find": "cat", "replace_with": "dog", "ignore_case": True, "whole_words": True}, "Cat category", "dog category"),
    ({"kind": "replace", "find": "a.c", "replace_with": r"\1", "ignore_case": True}, "abc A.C", r"abc \1"),
    ({"kind": "regex", "find": r"(\d+)girl", "replace_with": r"\1 girl"}, "1girl", "1 girl"),
    ({"kind": "regex", "find": "CAT", "ignore_case": True}, "a cat", "a"),
    ({"kind": "regex", "find": r"(\w)\1", "replace_with": r"<\1>"}, "aab", "<a>b"),
    ({"kind": "filter", "tags": ["watermark", "*text*"]}, "cat, Watermark, some text here, dog", "cat, dog"),
    ({"kind": "filter", "tags": ["a?"]}, "ab, a?, [a]", "ab, [a]"),
    ({"kind": "filter", "tags": ["[a]"]}, "a, [a]", "a"),
    ({"kind": "filter", "tags": ["dog"]}, "cat ,dogs", "cat ,dogs"),
    ({"kind": "filter", "tags": ["Dog"], "ignore_case": False}, "cat, dog, Dog", "cat, dog"),
    ({"kind": "deduplicate"}, "cat, dog, Cat, dog", "cat, dog"),
    ({"kind": "deduplicate", "ignore_case": False}, "cat, Cat, cat", "cat, Cat"),
    ({"kind": "deduplicate", "separator": "."}, "A cat. A dog. A cat.", "A cat. A dog."),
    ({"kind": "limit", "most": 2}, "a, (b, c), d", "a, (b, c)"),
    ({"kind": "limit", "most": 3}, "a, b", "a, b"),
    ({"kind": "limit", "most": 3, "unit": "words"}, "one two  three, four", "one two  three"),
    ({"kind": "wildcards"}, "a {cat}", "a {cat}"),
]


@pytest.mark.parametrize(("step", "text", "outcome"), PLAIN, ids=[f"{one['kind']}-{number}" for number, (one, _, _) in enumerate(PLAIN)])
def test_a_step_without_chance(step: dict[str, Any], text: str, outcome: str) -> None:
    assert _run(text, step) == outcome


def test_steps_are_done_in_their_order() -> None:
    steps = [{"kind": "replace", "find": "cat", "replace_with": "dog"}, {"kind": "trigger", "text": "cat"}]
    assert _run("a cat", *steps) == "cat, a dog"
    assert _run("a cat", *reversed(steps)) == "a dog"


def test_shuffle_keeps_what_it_is_told_to() -> None:
    assert len(_list("a, b, c", {"kind": "shuffle"})) == 6
    assert _list("a, b, c", {"kind": "shuffle", "keep": 1}) == {"a, b, c", "a, c, b"}
    assert _list("a, tok 1, c", {"kind": "shuffle", "keep_tags": ["TOK*"]}) == {"a, tok 1, c", "c, tok 1, a"}
    marked = {"kind": "shuffle", "keep_separator": "|||"}
    assert _list("x, y ||| a, b ||| z, w", marked) == {"x, y, a, b, z, w", "x, y, b, a, z, w"}
    assert _list("x ||| a, b", marked) == {"x, a, b", "x, b, a"}
    assert _list("||| a, b", marked) == {"a, b", "b, a"}
    assert _list("a, b", marked | {"keep": 1}) == {"a, b"}
    assert _list("a; b", {"kind": "shuffle", "separator": ";"}) == {"a; b", "b; a"}
    assert _list("a b", {"kind": "shuffle", "separator": " "}) == {"a b", "b a"}
    assert _list("One. Two.", {"kind": "shuffle", "separator": "."}) == {"One. Two.", "Two. One."}
    assert _list("", {"kind": "shuffle"}) == {""}


def test_drop_keeps_what_it_is_told_to() -> None:
    assert _list("a, b, c", {"kind": "drop", "rate": 0.5, "keep": 1}) == {"a, b, c", "a, b", "a, c", "a"}
    assert _list("a, b", {"kind": "drop", "rate": 1.0, "keep_tags": ["b"]}) == {"b"}
    assert _list("x ||| a ||| y", {"kind": "drop", "rate": 0.5, "keep_separator": "|||"}) == {"x, a, y", "x, y"}


def test_the_mark_of_one_step_holds_for_all() -> None:
    steps = [{"kind": "shuffle"}, {"kind": "drop", "rate": 1.0, "keep_separator": "|||"}, {"kind": "trigger", "text": "TOK"}]
    assert _list("x, y ||| a, b", *steps) == {"TOK, x, y"}
    assert _run("x ||| a, X, b", {"kind": "deduplicate"}, {"kind": "shuffle", "keep": 9, "keep_separator": "|||"}) in ("x, a, b", "x, b, a")
    assert _run("x ||| a, b ||| c", {"kind": "limit", "most": 2}, {"kind": "shuffle", "keep_separator": "|||"}) == "x, a"


def _limit(text: str, most: int, **keys: Any) -> str:
    """With a token for each word and comma, and one at the end."""
    config = DataConfig(path=Path("x"), caption_steps=[CaptionStepConfig(kind="limit", most=most, unit="tokens", **keys)])

    def count(texts: Sequence[str]) -> list[int]:
        return [len(text.replace(",", " , ").split()) + 1 for text in texts]

    steps = build_steps(config, key="data.0", count_tokens=count)
    assert steps is not None
    return steps.run(text, Drawn(0))


def test_tokens_are_limited_at_tags_or_words() -> None:
    text = "one two, three, (four, five), six"
    assert [_limit(text, most) for most in (99, 12, 11, 10, 9, 6, 5, 4, 3, 2, 1)] == [
        *[text] * 3, *["one two, three, (four, five)"] * 2, *["one two, three"] * 2, "one two", "one two", "one", ""
    ]
    assert _limit("A cat. On a mat. And a dog.", 7, separator=".") == "A cat. On a mat"
    with pytest.raises(DataError, match=r'^data\.0\.caption_steps\.0\.unit = "tokens" needs the tokenizer of the model'):
        _steps({"kind": "limit", "most": 5, "unit": "tokens"})


def test_a_long_caption_is_not_given_to_a_regular_expression() -> None:
    with pytest.raises(DataError, match=r"^caption is too long for a regular expression: 20,001 characters$"):
        _run("a" * 20_001, {"kind": "regex", "find": "b"})


@pytest.mark.parametrize(
    ("text", "tags"),
    [
        ("(masterpiece, best:1.2), cat", ("(masterpiece, best:1.2)", "cat")),
        ("a, (b, [c, d), e], f", ("a", "(b, [c, d)", "e]", "f")),
        ("happy :), sad :(, cat, dog", ("happy :)", "sad :(", "cat", "dog")),
        ("sad :-(, cat, happy ;-)", ("sad :-(", "cat", "happy ;-)")),
        ("1) cat, (dog, 2)", ("1) cat", "(dog, 2)")),
        (r"cat \(animal, furry\), dog", (r"cat \(animal, furry\)", "dog")),
        ('{"a": 1, "b": [2, 3]}', ('{"a": 1, "b": [2, 3]}',)),
        (" a ,, b , ", ("a", "b")),
        ("", ()),
    ],
)
def test_what_is_in_brackets_is_one_tag(text: str, tags: tuple[str, ...]) -> None:
    assert split_tags(text, ",").body == tags


@given(st.text("ab,()[]{}|_: "), st.sampled_from(list(STEP_ROWS)), st.integers(0, 1000))
@settings(max_examples=300, deadline=None)
def test_no_step_fails_on_odd_captions(text: str, kind: str, seed: int) -> None:
    needed: dict[str, Any] = {"text": "T", "find": "a", "rate": 0.5, "tags": ["a"], "most": 1}
    step = {"kind": kind, **{name: needed[name] for name in STEP_ROWS[kind].needs}}  # type: ignore[index]
    try:
        found = _run(text, step, seed=seed)
    except DataError as error:
        assert kind == "wildcards" and "wildcard" in error.what
    else:
        assert found == found.strip()


def test_every_kind_has_a_function() -> None:
    needed: dict[str, Any] = {"text": "T", "find": "a", "rate": 0.5, "tags": ["a"], "most": 1}
    for kind, row in STEP_ROWS.items():
        steps: tuple[Step, ...] = _steps({"kind": kind, **{name: needed[name] for name in row.needs}}).steps
        assert len(steps) == 1
