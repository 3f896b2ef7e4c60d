"""How many texts are longer than what a text part reads of them; the rest is cut off and never learned."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from weber.families.family import Family
from weber.progress import Progress, ignore_progress

MOST_TEXTS = 10_000
"""To measure a million texts takes a minute for each part."""

_NUM_PER_PORTION = 512
_MARKS = (77, 512)
"""Tokens that CLIP and T5 read at most; a text above one is counted for every part that reads on."""


@dataclass(frozen=True)
class Lengths:
    """Of one text part: how many of the texts it cuts, how many are above each mark, and the longest one (empty where there are none). Of
    many texts `num_texts` were looked at."""

    part: str
    most_tokens: int
    num_texts: int
    num_cut: int
    longest: str
    longest_tokens: int
    num_above: Mapping[int, int]


def list_lengths(family: Family, texts: Sequence[str], *, progress: Progress = ignore_progress) -> list[Lengths]:
    """The lengths of distinct texts, for each part; of more than `MOST_TEXTS` those of as many, drawn evenly. Opens tokenizers, no
    weights."""
    texts, found = list(texts) if len(texts) <= MOST_TEXTS else [texts[n * len(texts) // MOST_TEXTS] for n in range(MOST_TEXTS)], []
    for part in family.text_parts:
        limit, counts = family.text_limits[part](), list[int]()
        for start in range(0, len(texts), _NUM_PER_PORTION):
            counts += limit.count(texts[start : start + _NUM_PER_PORTION])
            if len(texts) > _NUM_PER_PORTION:
                progress(f"measuring the captions ({part})", len(counts), len(texts))
        most, place = max(((count, -place) for place, count in enumerate(counts)), default=(0, 0))
        num_cut = sum(count > limit.most_tokens for count in counts)
        above = {mark: sum(count > mark for count in counts) for mark in _MARKS}
        found.append(Lengths(part, limit.most_tokens, len(texts), num_cut, texts[-place] if texts else "", most, above))
    return found
