"""A caption as tags: what stands between separators, but not within brackets; those at marked places are kept."""

from __future__ import annotations

import re
from collections.abc import Callable, Sequence
from fnmatch import translate
from functools import lru_cache
from typing import NamedTuple

_BRACKETS = {"(": ")", "[": "]", "{": "}"}
_BRACKET = re.compile(r"(?<![:;=])(?<![:;=]-)[()]|[\[\]{}]")
"""But for faces, such as `:)`, of which two would enclose what is between them."""


class Tags(NamedTuple):
    """The tags before a mark, the free ones, and those behind a second mark; without marks all are free. `end` is a separator that the
    caption ends with, as sentences do."""

    head: tuple[str, ...]
    body: tuple[str, ...]
    tail: tuple[str, ...]
    separator: str
    mark: str | None
    num_marks: int
    end: str

    @property
    def all(self) -> tuple[str, ...]:
        """In their order."""
        return self.head + self.body + self.tail

    def change(self, keeps: Callable[[str], bool]) -> Tags:
        """Only those of which that is true."""
        head, body, tail = (tuple(tag for tag in tags if keeps(tag)) for tags in (self.head, self.body, self.tail))
        return self._replace(head=head, body=body, tail=tail)

    def cut(self, most: int) -> Tags:
        """The first of them."""
        parts = []
        for tags in (self.head, self.body, self.tail):
            parts.append(tags[:most])
            most -= len(parts[-1])
        return self._replace(head=parts[0], body=parts[1], tail=parts[2], end="")

    def join(self) -> str:
        """The caption again, marks included; nothing at all where no tag is left."""
        if not self.all:
            return ""
        joiner = build_joiner(self.separator)
        if not self.num_marks or self.mark is None:
            return joiner.join(self.body) + self.end
        sections = [self.head, self.body, self.tail][: self.num_marks + 1]
        return f" {self.mark} ".join(joiner.join(tags) for tags in sections).strip() + self.end


def split_tags(text: str, separator: str, *, mark: str | None = None) -> Tags:
    """The tags of a caption, without empty ones. With one mark there are none behind a second one."""
    sections = text.split(mark, 2) if mark is not None and mark in text else [text]
    parts = [_split(section, separator) for section in sections]
    end = separator if separator.strip() and text.rstrip().endswith(separator) else ""
    if len(parts) == 1:
        return Tags((), parts[0], (), separator, mark, 0, end)
    head, body, *rest = parts
    return Tags(head, body, rest[0] if rest else (), separator, mark, len(rest) + 1, end)


def drop_marks(text: str, mark: str, *, separator: str) -> str:
    """The caption without marks, which become separators."""
    sections = (section.strip() for section in text.split(mark))
    return build_joiner(separator).join(section for section in sections if section)


def build_joiner(separator: str) -> str:
    """What stands between two tags: the separator and a space."""
    return separator if separator[-1:].isspace() else f"{separator} "


def build_matcher(patterns: Sequence[str], *, ignore_case: bool) -> Callable[[str], bool]:
    """Is a tag one of these? `*` stands for any text, and all else for itself."""
    if not patterns:
        return lambda _: False
    parts = (translate(re.sub(r"([?\[])", r"[\1]", pattern.strip())) for pattern in patterns)
    matches = re.compile("|".join(parts), re.IGNORECASE if ignore_case else 0).match
    return lambda tag: matches(tag) is not None


@lru_cache(maxsize=256)  # of one caption several variants are made
def _split(text: str, separator: str) -> tuple[str, ...]:
    spans = _list_spans(text) if any(bracket in text for bracket in _BRACKETS) else []
    parts = _split_outside(text, separator, spans) if spans else text.split(separator)
    return tuple(stripped for part in parts if (stripped := part.strip()))


def _split_outside(text: str, separator: str, spans: list[tuple[int, int]]) -> list[str]:
    """Split where no bracket is open."""
    parts, start, place = [], 0, text.find(separator)
    spans = [*spans, (len(text), len(text))]
    for first, last in spans:
        while -1 < place < first:
            parts.append(text[start:place])
            start = place + len(separator)
            place = text.find(separator, start)
        if -1 < place < last:
            place = text.find(separator, last)
    return [*parts, text[start:]]


def _list_spans(text: str) -> list[tuple[int, int]]:
    """From where to where outermost brackets go; one that is never closed is a sign like any other."""
    opened: list[tuple[str, int]] = []
    spans: list[tuple[int, int]] = []
    for found in _BRACKET.finditer(text):
        character, place = found[0], found.start()
        if character in _BRACKETS:
            opened.append((_BRACKETS[character], place))
            continue
        at = next((depth for depth in range(len(opened) - 1, -1, -1) if opened[depth][0] == character), None)
        if at is not None:
            start = opened[at][1]
            while spans and spans[-1][0] > start:
                spans.pop()
            spans.append((start, place))
            del opened[at:]
    return spans
