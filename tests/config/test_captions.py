"""Settings of the steps of captions: what cannot act, and what would never end, is refused in words."""

from __future__ import annotations

from typing import Any

import pytest

from weber.config.load import build_config, load_config, save_config
from weber.config.regexes import check_regex
from weber.errors import ConfigError


def _build(*steps: dict[str, Any], **data: Any) -> Any:
    return build_config({"data": [{"path": "x", "caption_steps": list(steps), **data}]})


REFUSED: list[tuple[list[dict[str, Any]], dict[str, Any], str]] = [
    ([{"kind": "trigger"}], {}, 'data.0.caption_steps.0: kind = "trigger" needs text'),
    ([{"text": "a"}], {}, "data.0.caption_steps.0.kind is missing"),
    ([{"kind": "prefix", "text": "a", "rate": 0.5}], {}, 'rate has no effect with kind = "prefix"'),
    ([{"kind": "prefix", "text": "a", "rate": 0.5}], {}, 'set kind to "drop"'),
    ([{"kind": "drop", "rate": 0}], {}, "above 0"),
    ([{"kind": "shufle"}], {}, '"shuffle"'),
    ([{"kind": "shuffle", "keep_tokens": 1}], {}, "data.0.caption_steps.0.keep_tokens is not a setting"),
    ([{"kind": "regex", "find": "(a"}], {}, "is no regular expression, missing )"),
    ([{"kind": "regex", "find": r"(\w+\s*)+,"}], {}, "repeats what can be read in several ways"),
    ([{"kind": "regex", "find": "a(b)", "replace_with": "$1"}], {}, "write \\1 for the first group"),
    ([{"kind": "regex", "find": "a", "replace_with": r"\1"}], {}, "does not fit find"),
    ([{"kind": "regex", "find": "\bcat\b"}], {}, "find holds a sign that TOML makes of \\b or \\f in double quotes"),
    ([{"kind": "filter", "tags": ["a, b"]}], {}, 'write each as a text of its own: ["a", "b"]'),
    ([{"kind": "filter", "tags": []}], {}, 'kind = "filter" needs tags'),
    ([{"kind": "shuffle", "keep_separator": ","}], {}, "is what stands between tags"),
    ([{"kind": "shuffle", "keep_separator": "|||"}, {"kind": "drop", "rate": 0.1, "keep_separator": "||"}], {}, "write the same in both"),
    ([{"kind": "limit", "most": 5, "unit": "words", "separator": ";"}], {}, 'separator has no effect with unit = "words"'),
    ([{"kind": "limit", "most": 77, "unit": "characters"}], {}, "unit"),
    ([{"kind": "replace", "find": ""}], {}, "an empty text is not a value"),
    ([{"kind": "trigger", "text": " "}], {}, "an empty text is not a value"),
    ([{"kind": "prefix", "text": "a"}], {"caption_variants": 4}, "there is no step that draws"),
    ([], {"caption_variants": 4}, "there is no caption_steps"),
    ([{"kind": "shuffle"}], {"caption_variants": 10_000}, "at most 1024"),
    ([{"kind": "shuffle"}], {"captions": "none"}, 'caption_steps have no effect with captions = "none"'),
]


@pytest.mark.parametrize(("steps", "data", "words"), REFUSED, ids=[words[:40] for _, _, words in REFUSED])
def test_what_cannot_act_is_refused(steps: list[dict[str, Any]], data: dict[str, Any], words: str) -> None:
    with pytest.raises(ConfigError) as caught:
        _build(*steps, **data)
    assert words in str(caught.value), str(caught.value)


@pytest.mark.parametrize(
    "pattern",
    [
        *("(a+)+", "(a*)*b", "(a+){1,3}b", "(a+b?){3}", "([a-z]+)*", r"(\w+\s?)*$", "((a+)b?)+", "(?:a{2,})+", "(x|(a+))*"),
        *("(?P<n>a+){1,40}", "(a|aa)+$", r"(\w|x)*y", "(a{1,3})+b", "(aa?)+b", "(x(a|a))*b", "(?:ab?a?)*", "(a|(a|c))+", "(.|a)+b"),
        *("(a|)+b", "(?i:a|a)*"),
    ],
)
def test_endless_patterns(pattern: str) -> None:
    assert "may take for ever" in check_regex(pattern, "")


@pytest.mark.parametrize(
    "pattern",
    [
        *("(ab)+", r"\d+", "[(+]+x+", r"\(a+\)+", "(?>a+)+", "(a++)+", "(a{2})+", "(ab?){3}", "a+b+c*", "(a+)?", "[]+*]+", "(a|b)*"),
        *("{}+", "(?i)a+", "(?=a+)b+", "(?>cat|ca)+", r"(\w++\s?+)+", "(?P<x>ab)+", r"(\d)girls?", "cat|dog|ca+t", "(, sks)+"),
        *(r"(\.|,)+", "(?:ab|cd){2,}", "(?#a+)b+"),
    ],
)
def test_patterns_that_end(pattern: str) -> None:
    assert check_regex(pattern, "") == ""


def test_steps_are_saved_and_read_back(tmp_path: Any) -> None:
    steps = [{"kind": "replace", "find": "_", "replace_with": " "}, {"kind": "shuffle", "keep": 1, "keep_tags": ["a*"]}]
    config = _build(*steps, caption_variants=3)
    save_config(config, tmp_path / "run.toml")
    assert load_config(tmp_path / "run.toml") == config
    assert "[[data.caption_steps]]" in (tmp_path / "run.toml").read_text()


def test_steps_on_the_command_line(tmp_path: Any) -> None:
    config = load_config(None, ["data.0.path=x", "data.0.caption_steps.0.kind=trigger", "data.0.caption_steps.0.text=TOK"])
    assert [(one.kind, one.text) for one in config.data[0].caption_steps] == [("trigger", "TOK")]
