"""What is said about the pictures that the pocket model is trained on, and how it becomes tokens."""

from __future__ import annotations

import random
import re

from hypothesis import given
from hypothesis import strategies as st

from recipes.pocket.captions import BACKGROUNDS, STYLES, CaptionRecipe, Concept, Speller, draw_caption, list_words
from recipes.pocket.painter import TEXT_TOKENS
from weber.pocket.words import build_clip_tokenizer, build_t5_tokenizer

CONCEPTS = [Concept("🍎", "red apple", ("fruit", "teacher"), 0.6), Concept("👒", "woman's hat", (), 11)]
WORDS = list_words(CONCEPTS)
RECIPE = CaptionRecipe()


def _draw(seed: int, background: str, recipe: CaptionRecipe = RECIPE) -> str:
    rng = random.Random(seed)
    return draw_caption(rng.choice(CONCEPTS), rng.choice(STYLES), background=background, recipe=recipe, rng=rng)


@given(st.integers(0, 10**6), st.sampled_from(list(BACKGROUNDS)))
def test_every_word_of_every_caption_is_in_the_vocabulary(seed: int, background: str) -> None:
    words = re.findall(r"[a-z]+", _draw(seed, background))
    assert {word for word in words if len(word) > 1} <= set(WORDS)


def test_a_caption_names_the_background_unless_it_is_white() -> None:
    always = CaptionRecipe(empty=0, no_style=0, opening=0, tags=0)
    assert _draw(1, "blue", always) == "red apple, noto style, on a blue background"
    assert _draw(1, "white", always) == "red apple, noto style"


def test_shares_are_as_asked() -> None:
    captions = [_draw(seed, "white") for seed in range(4000)]
    assert abs(captions.count("") / 4000 - RECIPE.empty) < 0.02
    assert abs(sum("style" not in caption for caption in captions) / 4000 - RECIPE.empty - RECIPE.no_style) < 0.025


def _build_spellers() -> list[Speller]:
    return [Speller(build(WORDS), build([]), words=WORDS) for build in (build_clip_tokenizer, build_t5_tokenizer)]


@given(st.integers(0, 10**6), st.sampled_from(list(BACKGROUNDS)))
def test_without_spelling_the_ids_are_the_tokenizers_own(seed: int, background: str) -> None:
    caption = _draw(seed, background)
    for speller in SPELLERS:
        expected = speller.tokenizer(caption, padding="max_length", max_length=TEXT_TOKENS, truncation=True).input_ids
        assert speller.encode(caption, TEXT_TOKENS, share=0.0, rng=random.Random(0)) == expected


@given(st.integers(0, 10**6))
def test_a_spelled_word_reads_the_same(seed: int) -> None:
    for speller in SPELLERS:
        whole = speller.encode("red apple, noto style", TEXT_TOKENS, share=0.0, rng=random.Random(seed))
        spelled = speller.encode("red apple, noto style", TEXT_TOKENS, share=1.0, rng=random.Random(seed))
        read = speller.tokenizer.decode(spelled, skip_special_tokens=True)
        assert spelled != whole and len(spelled) == TEXT_TOKENS
        assert read.replace(" ,", ",") == "red apple, noto style"


def test_a_caption_that_is_too_long_keeps_its_end_token() -> None:
    for speller in SPELLERS:
        ids = speller.encode("zyx " * 40, TEXT_TOKENS, share=0.0, rng=random.Random(0))
        assert len(ids) == TEXT_TOKENS and ids[-1] == speller.tokenizer.eos_token_id


SPELLERS = _build_spellers()
