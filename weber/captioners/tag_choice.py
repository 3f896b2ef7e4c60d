"""Which of the tags that a network knows a picture gets, in which words and in which order."""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Literal

from weber.captioners.tagger import Likely
from weber.data.tags import build_matcher, split_tags
from weber.errors import ConfigError

Place = Literal["first", "last"]
_WHOLE = ("rating", "quality")
"""Categories of which a picture has one tag: the likeliest."""

_FACE_LENGTH = 3
"""Tags that long keep their underscores: most of them are faces, such as ^_^."""


@dataclass(frozen=True)
class Choice:
    """`threshold`: how likely tags are at least, `thresholds` by category. `undesired`: tags that are left out, `*` for any text;
    `replaced`: tags by what is written for them; `first`: tags that come before all others, in that order, if a picture has them.
    `rating`, `quality`: where these are put, None: left out. `expands`: `name_(series)` becomes two tags. `order`: of tags by their
    probability, or as the network's list has them."""

    threshold: float = 0.35
    thresholds: Mapping[str, float] = field(default_factory=dict)
    undesired: Sequence[str] = ()
    replaced: Mapping[str, str] = field(default_factory=dict)
    first: Sequence[str] = ()
    rating: Place | None = None
    quality: Place | None = None
    removes_underscores: bool = False
    characters_first: bool = False
    expands: bool = False
    order: Literal["probability", "list"] = "probability"


def check_choice(choice: Choice) -> None:
    """Refuse thresholds that are none. Raises ConfigError."""
    for name, number in {"threshold": choice.threshold, **choice.thresholds}.items():
        if not 0 <= number <= 1:
            raise ConfigError("A threshold lies in 0..1.", got=f"{name} {number:g}", fix="write one such as 0.35")


def choose_tags(found: Sequence[Likely], choice: Choice) -> list[str]:
    """The tags of a picture."""
    kept = [one for one in found if one.label.category not in _WHOLE and one.probability >= _find_threshold(one, choice)]
    if choice.order == "probability":
        kept.sort(key=lambda one: -one.probability)
    if choice.characters_first:
        kept.sort(key=lambda one: one.label.category != "character")
    tags = [tag for one in kept for tag in _write(one, choice)]
    for category, place in (("quality", choice.quality), ("rating", choice.rating)):
        likeliest = max((one for one in found if one.label.category == category), key=lambda one: one.probability, default=None)
        if place is not None and likeliest is not None:
            words = _write(likeliest, choice)
            tags = [*words, *tags] if place == "first" else [*tags, *words]
    is_undesired = build_matcher(choice.undesired, ignore_case=True)
    tags = [tag for tag in dict.fromkeys(tags) if not is_undesired(tag)]
    there = {tag.lower(): tag for tag in tags}
    first = [there[tag.lower()] for tag in choice.first if tag.lower() in there]
    return [*first, *(tag for tag in tags if tag not in first)]


def append_tags(text: str, new: str, *, separator: str) -> str:
    """The tags of a text and those that it lacks."""
    old = split_tags(text, separator.strip() or separator).all
    known = {tag.lower() for tag in old}
    return separator.join([*old, *(tag for tag in split_tags(new, separator.strip() or separator).all if tag.lower() not in known)])


def count_frequency(texts: Sequence[Sequence[str]]) -> list[tuple[str, int]]:
    """How many pictures have each tag, the most frequent first."""
    return Counter(tag for tags in texts for tag in tags).most_common()


def _find_threshold(one: Likely, choice: Choice) -> float:
    return choice.thresholds.get(one.label.category, choice.threshold)


def _write(one: Likely, choice: Choice) -> list[str]:
    """A tag in the words that it is written in: one, or two where it is expanded."""
    tag = one.label.tag
    if tag in choice.replaced:
        return [choice.replaced[tag]]
    parts = _expand(tag) if choice.expands and one.label.category == "character" else [tag]
    words = [part.replace("_", " ") if choice.removes_underscores and len(part) > _FACE_LENGTH else part for part in parts]
    return [choice.replaced.get(word, word) for word in words]


def _expand(tag: str) -> list[str]:
    """`name_(series)` as name and series; of several brackets the last one."""
    head, bracket, tail = tag.rpartition("_(")
    return [head, tail[:-1]] if bracket and head and tail.endswith(")") else [tag]
