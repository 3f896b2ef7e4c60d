"""The steps that a caption goes through: each kind a function of the caption and of chance, compiled once per set."""

from __future__ import annotations

import re
import unicodedata
from collections.abc import Callable, Mapping
from dataclasses import dataclass, replace

from weber.config.captions import CaptionStepConfig, StepKind
from weber.config.data import DataConfig
from weber.data.chances import Chance
from weber.data.tags import build_joiner, build_matcher, drop_marks, split_tags
from weber.data.wildcards import load_wildcards
from weber.errors import DataError

Step = Callable[[str, Chance], str]
"""What becomes of a caption. Raises DataError with a one-line reason for one that it cannot take."""

_MOST_CHARACTERS = 20_000
"""Of a caption that a regular expression is tried on, whose time may grow as the square of it."""

_PUNCTUATION = ",.;:!?)]}"
_PLACEHOLDER = "[trigger]"


@dataclass(frozen=True)
class Steps:
    """The steps of a set. `is_random`: has chance a part in any? `most`: how many variants a picture may have, None: as is usual."""

    steps: tuple[Step, ...]
    is_random: bool
    most: int | None

    def run(self, text: str, chance: Chance) -> str:
        """What becomes of a caption."""
        for step in self.steps:
            text = step(text, chance)
        return text.strip()


def build_steps(config: DataConfig, *, key: str) -> Steps | None:
    """The steps of a set, None where it has none; reads lists of wildcards. DataError for lists that cannot be used."""
    if not config.caption_steps:
        return None
    mark = next((one.keep_separator for one in config.caption_steps if one.keep_separator is not None), None)
    steps = [_BUILD[one.kind](one, f"{key}.caption_steps.{number}", mark) for number, one in enumerate(config.caption_steps)]
    if mark is not None:
        steps.append(_build_unmarked(mark, next(one.separator or "," for one in config.caption_steps if one.keep_separator is not None)))
    return Steps(tuple(steps), any(one.is_random for one in config.caption_steps), config.caption_variants)


def _build_prefix(config: CaptionStepConfig, key: str, mark: str | None) -> Step:
    added = config.text or ""
    return lambda text, _: added + ("" if added[-1].isspace() or not text or text[0].isspace() else " ") + text


def _build_suffix(config: CaptionStepConfig, key: str, mark: str | None) -> Step:
    added = config.text or ""
    joined = added if added[0].isspace() or added[0] in _PUNCTUATION else f" {added}"
    return lambda text, _: text + joined if text else added.lstrip(" ,.;:!?")


def _build_trigger(config: CaptionStepConfig, key: str, mark: str | None) -> Step:
    word, joiner, is_last = (config.text or "").strip(), build_joiner(config.separator or ","), config.place == "end"
    find = re.compile(_bound(word), re.IGNORECASE if config.ignore_case is not False else 0)

    def run(text: str, _: Chance) -> str:
        if _PLACEHOLDER in text:
            return text.replace(_PLACEHOLDER, word)
        text, num = find.subn(lambda _: word, text)
        if num:
            return text
        if not text:
            return word
        return f"{text}{joiner}{word}" if is_last else f"{word}{joiner}{text}"

    return run


def _build_replace(config: CaptionStepConfig, key: str, mark: str | None) -> Step:
    wanted, other = config.find or "", config.replace_with or ""
    if not config.ignore_case and not config.whole_words:
        return lambda text, _: text.replace(wanted, other)
    find = re.compile(_bound(wanted) if config.whole_words else re.escape(wanted), re.IGNORECASE if config.ignore_case else 0)
    return lambda text, _: find.sub(lambda _: other, text)


def _build_regex(config: CaptionStepConfig, key: str, mark: str | None) -> Step:
    find, other = re.compile(config.find or "", re.IGNORECASE if config.ignore_case else 0), config.replace_with or ""

    def run(text: str, _: Chance) -> str:
        if len(text) > _MOST_CHARACTERS:
            raise DataError(f"caption is too long for a regular expression: {len(text):,} characters")
        return find.sub(other, text)

    return run


def _build_wildcards(config: CaptionStepConfig, key: str, mark: str | None) -> Step:
    return load_wildcards(config.folder, key=f"{key}.folder").expand


def _build_shuffle(config: CaptionStepConfig, key: str, mark: str | None) -> Step:
    separator, stays = config.separator or ",", build_matcher(config.keep_tags, ignore_case=True)

    def run(text: str, chance: Chance) -> str:
        tags = split_tags(text, separator, mark=mark)
        body, first = list(tags.body), 0 if tags.num_marks else config.keep or 0
        places = [place for place in range(first, len(body)) if not stays(body[place])]
        order = chance.order(len(places))
        moved = [body[places[number]] for number in order]
        for place, tag in zip(places, moved, strict=True):
            body[place] = tag
        return replace(tags, body=tuple(body)).join()

    return run


def _build_drop(config: CaptionStepConfig, key: str, mark: str | None) -> Step:
    separator, stays, rate = config.separator or ",", build_matcher(config.keep_tags, ignore_case=True), config.rate or 0.0

    def run(text: str, chance: Chance) -> str:
        tags = split_tags(text, separator, mark=mark)
        first = 0 if tags.num_marks else config.keep or 0
        left = [tag for place, tag in enumerate(tags.body) if place < first or stays(tag) or not chance.happens(rate)]
        return replace(tags, body=tuple(left)).join()

    return run


def _build_filter(config: CaptionStepConfig, key: str, mark: str | None) -> Step:
    separator, goes = config.separator or ",", build_matcher(config.tags, ignore_case=config.ignore_case is not False)

    def run(text: str, _: Chance) -> str:
        tags = split_tags(text, separator, mark=mark)
        left = tags.change(lambda tag: not goes(tag))
        return text if len(left.all) == len(tags.all) else left.join()

    return run


def _build_deduplicate(config: CaptionStepConfig, key: str, mark: str | None) -> Step:
    separator, ignore_case = config.separator or ",", config.ignore_case is not False

    def run(text: str, _: Chance) -> str:
        seen: set[str] = set()

        def is_new(tag: str) -> bool:
            name, num_seen = tag.casefold() if ignore_case else tag, len(seen)
            seen.add(name)
            return len(seen) > num_seen

        tags = split_tags(text, separator, mark=mark)
        left = tags.change(is_new)
        return text if len(left.all) == len(tags.all) else left.join()

    return run


def _build_limit(config: CaptionStepConfig, key: str, mark: str | None) -> Step:
    separator, most, is_words = config.separator or ",", config.most or 0, config.unit == "words"

    def run(text: str, _: Chance) -> str:
        if is_words:
            words = list(re.finditer(r"\S+", text))
            return text if len(words) <= most else text[: words[most - 1].end()].rstrip(",;:")
        tags, left = split_tags(text, separator, mark=mark), most
        if len(tags.all) <= most:
            return text
        parts = []
        for part in (tags.head, tags.body, tags.tail):
            parts.append(part[:left])
            left -= len(parts[-1])
        return replace(tags, head=parts[0], body=parts[1], tail=parts[2], end="").join()

    return run


def _build_unmarked(mark: str, separator: str) -> Step:
    return lambda text, _: drop_marks(text, mark, separator=separator) if mark in text else text


def _bound(word: str) -> str:
    """A pattern for a word that is no part of a longer one; scripts that write no spaces between words have no such bounds."""
    before = r"(?<!\w)" if _has_bound(word[:1]) else ""
    behind = r"(?!\w)" if _has_bound(word[-1:]) else ""
    return before + re.escape(word) + behind


def _has_bound(character: str) -> bool:
    return (character.isalnum() or character == "_") and unicodedata.east_asian_width(character) not in "WF"


_BUILD: Mapping[StepKind, Callable[[CaptionStepConfig, str, str | None], Step]] = {
    "prefix": _build_prefix,
    "suffix": _build_suffix,
    "trigger": _build_trigger,
    "replace": _build_replace,
    "regex": _build_regex,
    "wildcards": _build_wildcards,
    "shuffle": _build_shuffle,
    "drop": _build_drop,
    "filter": _build_filter,
    "deduplicate": _build_deduplicate,
    "limit": _build_limit,
}
