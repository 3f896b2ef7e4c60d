"""Tokens are counted once, and again where the tokenizer is another one."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from pathlib import Path

import pytest

from weber.families import counts
from weber.families.counts import build_count


def test_what_was_counted_is_known_until_the_tokenizer_changes(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    asked: list[str] = []
    (tmp_path / "tokenizer.json").write_text("ab")

    def count(tokenizer: str, texts: Sequence[str]) -> list[int]:
        asked.extend(texts)
        return [sum(text.count(letter) for letter in tokenizer) for text in texts]

    def build(name: str = "one") -> Callable[[Sequence[str]], list[int]]:
        return build_count(name, tmp_path, load=(tmp_path / "tokenizer.json").read_text, count=count)

    assert build()(["aab", "b", "aab", ""]) == [3, 1, 3, 0] and asked == ["aab", "b", ""]
    assert build()(["b", "c", "aab"]) == [1, 0, 3] and asked[3:] == ["c"]
    assert build("two")(["b"]) == [1] and asked[4:] == ["b"]
    (tmp_path / "tokenizer.json").write_text("abb")
    assert build()(["b"]) == [2]
    monkeypatch.setattr(counts, "_MOST_TEXTS", 2)
    assert build()(["b", "c", "a", "c"]) == [2, 0, 1, 0] and build()(["a"]) == [1] and asked[-3:] == ["c", "a", "a"]
    (tmp_path / "tokenizer.json").unlink()
    with pytest.raises(FileNotFoundError):
        build()(["x"])
