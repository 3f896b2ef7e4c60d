"""What the captions of a set say in all: how long they are, which words they have most, and how many have the trigger word."""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass
from statistics import median

from weber.data.tags import split_tags
from weber.tending.findings import Limits

_WORD = re.compile(r"[^\W_]+(?:[-'’][^\W_]+)*")
_PIECE = re.compile(r"[^\W\d_]+|\d|_|[^\w\s]+")
_IDLE = frozenset(
    [
        "a",
        "an",
        "and",
        "are",
        "as",
        "at",
        "be",
        "by",
        "for",
        "from",
        "has",
        "he",
        "her",
        "his",
        "in",
        "is",
        "it",
        "its",
        "of",
        "on",
        "or",
        "over",
        "she",
        "that",
        "the",
        "their",
        "there",
        "they",
        "this",
        "to",
        "under",
        "was",
        "were",
        "which",
        "while",
        "who",
        "with",
    ]
)
_NUM_WORDS, _NUM_TAGS = 30, 20
_CLIP_TOKENS, _T5_TOKENS = 77, 512


@dataclass(frozen=True)
class CaptionFacts:
    """Of all captions. `words`, `tags`: the most frequent, with how many captions have them; words that say nothing are left out.
    `num_with_trigger`: how many have that word; None where nobody asked."""

    num_captions: int
    num_distinct: int
    num_words: tuple[int, float, int]
    words: tuple[tuple[str, int], ...]
    tags: tuple[tuple[str, int], ...]
    num_with_trigger: int | None


def count_facts(captions: Sequence[str], trigger: str | None) -> CaptionFacts:
    """What some captions say."""
    lengths = [len(_WORD.findall(text)) for text in captions]
    words = Counter(word for text in captions for word in {word.lower() for word in _WORD.findall(text)} - _IDLE)
    tags = Counter(tag.lower() for text in captions for tag in {*split_tags(text, ",").all})
    common = [(tag, number) for tag, number in tags.most_common(_NUM_TAGS) if number > 1]
    with_trigger = None if trigger is None else sum(has_word(text, trigger) for text in captions)
    spread = (min(lengths, default=0), float(median(lengths)) if lengths else 0.0, max(lengths, default=0))
    return CaptionFacts(len(captions), len({*captions}), spread, tuple(words.most_common(_NUM_WORDS)), tuple(common), with_trigger)


def has_word(text: str, word: str) -> bool:
    """Does a caption have that word or phrase, whole and whatever its case?"""
    return re.search(rf"(?<!\w){re.escape(word)}(?!\w)", text, re.IGNORECASE) is not None


def count_least_tokens(texts: Sequence[str]) -> list[int]:
    """How many tokens CLIP makes of each text at least: it never joins words, digits or punctuation, and adds two marks."""
    return [len(_PIECE.findall(text)) + 2 for text in texts]


def count_least_pieces(texts: Sequence[str]) -> list[int]:
    """Likewise of T5: each word is a token or more, and one mark is added."""
    return [len(text.split()) + 1 for text in texts]


def build_least_limits() -> Limits:
    """What CLIP and T5 read, where no tokenizer is here."""
    parts = {"CLIP": (_CLIP_TOKENS, count_least_tokens), "T5": (_T5_TOKENS, count_least_pieces)}
    return Limits(parts, is_least=True)
