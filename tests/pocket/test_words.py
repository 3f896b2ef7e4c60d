"""The two small tokenizers: every text tokenizes, known words are one token, files read back the same."""

from __future__ import annotations

from pathlib import Path

import pytest
from hypothesis import assume, given
from hypothesis import strategies as st
from transformers import CLIPTokenizer, PreTrainedTokenizerBase, T5Tokenizer

from weber.pocket.words import WORDS, build_clip_tokenizer, build_t5_tokenizer

EXAMPLES = Path(__file__).parents[2] / "examples" / "fluent"
CLIP, T5 = build_clip_tokenizer(), build_t5_tokenizer()


def _list_ids(tokenizer: PreTrainedTokenizerBase, text: str, **options: object) -> list[int]:
    ids: list[int] = tokenizer(text, **options).input_ids
    return ids


def test_every_word_of_the_examples_is_known() -> None:
    captions = [line for file in EXAMPLES.glob("*.txt") for line in file.read_text(encoding="utf-8").splitlines()]
    assert len(captions) >= 32
    assert {word for caption in captions for word in caption.replace(",", " ").split()} <= set(WORDS)


@pytest.mark.parametrize("word", [word for word in WORDS if word != "3d"])
def test_a_known_word_is_one_token(word: str) -> None:
    assert CLIP.tokenize(word) == [f"{word}</w>"]
    assert T5.tokenize(word) == [f"▁{word}"]


def test_clip_ends_with_its_end_token_and_t5_with_its_own() -> None:
    assert _list_ids(CLIP, "red fox")[0] == CLIP.bos_token_id
    assert _list_ids(CLIP, "red fox")[-1] == CLIP.eos_token_id
    assert _list_ids(T5, "red fox")[-1] == T5.eos_token_id == 1
    assert _list_ids(T5, "red fox", padding="max_length", max_length=6)[-1] == T5.pad_token_id == 0


@given(st.text())
def test_clip_spells_any_text_without_its_end_token(text: str) -> None:
    assume("<|" not in text)
    ids = _list_ids(CLIP, text, add_special_tokens=False)
    assert CLIP.eos_token_id not in ids
    assert all(0 <= index < len(CLIP) for index in ids)


@given(st.text(alphabet=st.characters(min_codepoint=33, max_codepoint=126), min_size=1))
def test_t5_knows_all_printable_ascii(text: str) -> None:
    ids = _list_ids(T5, text.replace("<", "("))
    assert T5.unk_token_id not in ids


def test_t5_marks_other_characters_as_unknown() -> None:
    assert T5.unk_token_id in _list_ids(T5, "été")


@pytest.mark.parametrize(("tokenizer", "length"), [(CLIP, 77), (T5, 512)])
def test_long_text_is_cut_to_the_length_of_the_model(tokenizer: PreTrainedTokenizerBase, length: int) -> None:
    assert len(_list_ids(tokenizer, "zebra " * 600, truncation=True)) == tokenizer.model_max_length == length


@pytest.mark.parametrize("tokenizer", [CLIP, T5])
def test_files_read_back_the_same(tokenizer: CLIPTokenizer | T5Tokenizer, tmp_path: Path) -> None:
    tokenizer.save_pretrained(tmp_path)
    again = type(tokenizer).from_pretrained(tmp_path)
    for text in ("red apple, 3d fluent style", "Ünïcode zebra 😀, it's 42!", ""):
        assert _list_ids(again, text) == _list_ids(tokenizer, text)
