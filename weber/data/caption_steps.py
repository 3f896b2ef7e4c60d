"""The steps that a caption goes through: each kind a function of the caption and of chance, compiled once per set."""

from __future__ import annotations

import re
import unicodedata
from bisect import bisect_right
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field

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

CountTokens = Callable[[Sequence[str]], list[int]]
"""How many tokens a text encoder makes of each text."""

_PUNCTUATION = ",.;:!?)]}"
_PLACEHOLDER = "[trigger]"


@dataclass(frozen=True)
class Steps:
    """The steps of a set. `is_random`: has chance a part in any? `most`: how many variants a picture may have, None: as is usual.

    `acted` are the numbers of those that have changed a caption so far.
    """

    steps: tuple[Step, ...]
    is_random: bool
    most: int | None
    acted: set[int] = field(default_factory=set)

    def run(self, text: str, chance: Chance) -> str:
        """What becomes of a caption."""
        for number, step in enumerate(self.steps):
            before, text = text, step(text, chance)
            if text != before:
                self.acted.add(number)
        return text.strip()


@dataclass(frozen=True)
class _Set:
    """What a step may need of its set: where the step is in a config, the mark that keeps tags, how tokens are counted."""

    key: str
    mark: str | None
    count_tokens: CountTokens | None


def build_steps(config: DataConfig, *, key: str, count_tokens: CountTokens | None = None) -> Steps | None:
    """The steps of a set, None where it has none; reads lists of wildcards. DataError for lists that cannot be used, and for tokens that
    nobody can count."""
    if not config.caption_steps:
        return None
    mark = next((one.keep_separator for one in config.caption_steps if one.keep_separator is not None), None)
    steps = [
        _BUILD[one.kind](one, _Set(f"{key}.caption_steps.{number}", mark, count_tokens)) for number, one in enumerate(config.caption_steps)
    ]
    if mark is not None:
        steps.append(_build_unmarked(mark, next(one.separator or "," for one in config.caption_steps if one.keep_separator is not None)))
    return Steps(tuple(steps), any(one.is_random for one in config.caption_steps), config.caption_variants)


def describe_idle(config: DataConfig, steps: Steps | None, *, key: str) -> list[str]:
    """A line for each step that has changed no caption of its set."""
    if steps is None:
        return []
    idle = [number for number in range(len(config.caption_steps)) if number not in steps.acted]
    return [
        f'{config.set_name}: {key}.caption_steps.{number}, of kind "{config.caption_steps[number].kind}", has changed no caption'
        for number in idle
    ]


def _build_prefix(config: CaptionStepConfig, of: _Set) -> Step:
    added = config.text or ""
    return lambda text, _: added + ("" if added[-1].isspace() or not text or text[0].isspace() else " ") + text


def _build_suffix(config: CaptionStepConfig, of: _Set) -> Step:
    added = config.text or ""
    joined = added if added[0].isspace() or added[0] in _PUNCTUATION else f" {added}"
    return lambda text, _: text + joined if text else added.lstrip(" ,.;:!?")


def _build_trigger(config: CaptionStepConfig, of: _Set) -> Step:
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


def _build_replace(config: CaptionStepConfig, of: _Set) -> Step:
    wanted, other = config.find or "", config.replace_with or ""
    if not config.ignore_case and not config.whole_words:
        return lambda text, _: text.replace(wanted, other)
    find = re.compile(_bound(wanted) if config.whole_words else re.escape(wanted), re.IGNORECASE if config.ignore_case else 0)
    return lambda text, _: find.sub(lambda _: other, text)


def _build_regex(config: CaptionStepConfig, of: _Set) -> Step:
    find, other = re.compile(config.find or "", re.IGNORECASE if config.ignore_case else 0), config.replace_with or ""

    def run(text: str, _: Chance) -> str:
        if len(text) > _MOST_CHARACTERS:
            raise DataError(f"caption is too long for a regular expression: {len(text):,} characters")
        return find.sub(other, text)

    return run


def _build_wildcards(config: CaptionStepConfig, of: _Set) -> Step:
    return load_wildcards(config.folder, key=f"{of.key}.folder").expand


def _build_shuffle(config: CaptionStepConfig, of: _Set) -> Step:
    separator, stays = config.separator or ",", build_matcher(config.keep_tags, ignore_case=True)

    def run(text: str, chance: Chance) -> str:
        tags = split_tags(text, separator, mark=of.mark)
        body, first = list(tags.body), 0 if tags.num_marks else config.keep or 0
        places = [place for place in range(first, len(body)) if not stays(body[place])]
        order = chance.order(len(places))
        moved = [body[places[number]] for number in order]
        for place, tag in zip(places, moved, strict=True):
            body[place] = tag
        return tags._replace(body=tuple(body)).join()

    return run


def _build_drop(config: CaptionStepConfig, of: _Set) -> Step:
    separator, stays, rate = config.separator or ",", build_matcher(config.keep_tags, ignore_case=True), config.rate or 0.0

    def run(text: str, chance: Chance) -> str:
        tags = split_tags(text, separator, mark=of.mark)
        first = 0 if tags.num_marks else config.keep or 0
        left = [tag for place, tag in enumerate(tags.body) if place < first or stays(tag) or not chance.happens(rate)]
        return tags._replace(body=tuple(left)).join()

    return run


def _build_filter(config: CaptionStepConfig, of: _Set) -> Step:
    separator, goes = config.separator or ",", build_matcher(config.tags, ignore_case=config.ignore_case is not False)

    def run(text: str, _: Chance) -> str:
        tags = split_tags(text, separator, mark=of.mark)
        left = tags.change(lambda tag: not goes(tag))
        return text if len(left.all) == len(tags.all) else left.join()

    return run


def _build_deduplicate(config: CaptionStepConfig, of: _Set) -> Step:
    separator, ignore_case = config.separator or ",", config.ignore_case is not False

    def run(text: str, _: Chance) -> str:
        seen: set[str] = set()

        def is_new(tag: str) -> bool:
            name, num_seen = tag.casefold() if ignore_case else tag, len(seen)
            seen.add(name)
            return len(seen) > num_seen

        tags = split_tags(text, separator, mark=of.mark)
        left = tags.change(is_new)
        return text if len(left.all) == len(tags.all) else left.join()

    return run


def _build_limit(config: CaptionStepConfig, of: _Set) -> Step:
    separator, most = config.separator or ",", config.most or 0
    if config.unit == "words":
        return lambda text, _: _cut_words(text, most)
    if config.unit == "tokens":
        return _build_token_limit(config, of)

    def run(text: str, _: Chance) -> str:
        tags = split_tags(text, separator, mark=of.mark)
        return text if len(tags.all) <= most else tags.cut(most).join()

    return run


def _build_token_limit(config: CaptionStepConfig, of: _Set) -> Step:
    """Whole tags, as many as fit; of one that does not fit by itself whole words."""
    separator, most, count_tokens = config.separator or ",", config.most or 0, of.count_tokens
    if count_tokens is None:
        raise DataError(
            f'{of.key}.unit = "tokens" needs the tokenizer of the model, which is not here',
            got="a model of which no file is on this machine",
            fix='download the model, or set unit = "tags" or "words"',
        )

    def count(text: str) -> int:
        return count_tokens([text])[0]

    def run(text: str, _: Chance) -> str:
        if count(text) <= most:
            return text
        tags = split_tags(text, separator, mark=of.mark)
        fitting = bisect_right(range(1, len(tags.all) + 1), most, key=lambda number: count(tags.cut(number).join()))
        if fitting:
            return tags.cut(fitting).join()
        words = len(text.split())
        return _cut_words(text, bisect_right(range(1, words + 1), most, key=lambda number: count(_cut_words(text, number))))

    return run


def _cut_words(text: str, most: int) -> str:
    """The first words of a text."""
    words = list(re.finditer(r"\S+", text))
    return text if len(words) <= most else text[: words[most - 1].end()].rstrip(",;:") if most else ""


def _build_unmarked(mark: str, separator: str) -> Step:
    return lambda text, _: drop_marks(text, mark, separator=separator) if mark in text else text


def _bound(word: str) -> str:
    """A pattern for a word that is no part of a longer one; scripts that write no spaces between words have no such bounds."""
    before = r"(?<!\w)" if _has_bound(word[:1]) else ""
    behind = r"(?!\w)" if _has_bound(word[-1:]) else ""
    return before + re.escape(word) + behind


def _has_bound(character: str) -> bool:
    return (character.isalnum() or character == "_") and unicodedata.east_asian_width(character) not in "WF"


_BUILD: Mapping[StepKind, Callable[[CaptionStepConfig, _Set], Step]] = {
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
