"""Regular expressions that a person writes: whether they are valid, and whether they would ever end."""

from __future__ import annotations

import re
from collections.abc import Iterator
from dataclasses import dataclass, field

_QUANTIFIER = re.compile(r"([*+?]|\{\d*,?\d*\})([?+]?)")
_GROUP = re.compile(r"\((\?[^:=!>)]*[:=!>]?)?")
_GROUP_NAME = re.compile(r"\$\{?\d")
_MOST_REPEATS = 16
"""A repeat of a known number up to this multiplies the work, but does not make it endless."""


def check_regex(pattern: str, replacement: str) -> str:
    """Why a pattern or what takes its place cannot be used, as `what; fix`; empty where they can."""
    try:
        compiled = re.compile(pattern)
    except (re.error, OverflowError, RecursionError) as error:
        return f"find = '{pattern}' is no regular expression, {error}; mend it, or set kind = \"replace\", which takes text as it is"
    if _is_endless(pattern):
        return (
            f"find = '{pattern}' repeats what can be read in several ways, which may take for ever on a caption that nearly matches; write"
            " what is repeated so that it holds on to what it has (possessive), such as (\\w++\\s?+)+ or (?>cat|ca)+, or do not repeat it"
        )
    if compiled.groups and _GROUP_NAME.search(replacement):
        return f"replace_with = '{replacement}' names a group as other languages do; write \\1 for the first group"
    try:
        compiled.sub(replacement, "")
    except (re.error, IndexError) as error:
        return f"replace_with = '{replacement}' does not fit find, {error}; write \\1 for the first group, and \\\\ for a backslash"
    return ""


@dataclass
class _Group:
    """An open group: whether what is in it has no fixed length, or none that is bounded, what its branches start with, and whether it
    holds on to what it has."""

    varies: bool = False
    is_unbounded: bool = False
    starts: list[str] = field(default_factory=lambda: [""])
    is_atomic: bool = False

    @property
    def is_ambiguous(self) -> bool:
        """May it be read in several ways?"""
        plain = [start for start in self.starts if re.fullmatch(r"[^.^$(]|\\\W", start)]
        is_branched = len(self.starts) > 1 and len(set(plain)) < len(self.starts)
        return not self.is_atomic and (self.varies or is_branched)


def _is_endless(pattern: str) -> bool:
    """Is anything repeated without bound that may be read in several ways, and does not hold on to what it has (possessive, atomic)?"""
    opened, before = [_Group()], _Group()  # `before` is the group that ends at the place, or an empty one
    for kind, text in _list_parts(pattern):
        group = opened[-1]
        if kind != "close" and not group.starts[-1]:
            group.starts[-1] = text
        if kind == "open":
            opened.append(_Group(is_atomic=text.startswith("(?>")))
        elif kind == "close" and len(opened) > 1:
            before = opened.pop()
            opened[-1].varies |= before.is_ambiguous
            opened[-1].is_unbounded |= before.is_unbounded and not before.is_atomic
            continue
        elif kind == "branch":
            group.starts[-1] = group.starts[-1].removeprefix("|")
            group.starts.append("")
        elif kind in ("repeat", "several", "vary"):
            is_several = kind == "several" and before.is_unbounded and not before.is_atomic
            if is_several or (kind == "repeat" and before.is_ambiguous):
                return True
            group.varies |= kind != "several" or "," in text
            group.is_unbounded |= kind == "repeat"
        before = _Group()
    return False


def _list_parts(pattern: str) -> Iterator[tuple[str, str]]:
    """The parts of a valid pattern: `open` and `close` of groups, `branch`, an unbounded `repeat`, a bounded one (`several`, or `vary` if
    at most once), and `other`."""
    place = 0
    while place < len(pattern):
        character, found = pattern[place], _QUANTIFIER.match(pattern, place)
        if character == "\\":
            yield "other", pattern[place : place + 2]
            place += 2
        elif character == "[":
            end = _find_end(pattern, place)
            yield "other", pattern[place:end]
            place = end
        elif character == "(":
            head = _GROUP.match(pattern, place)
            assert head is not None
            yield "open", head[0]
            place = head.end()
        elif character in ")|":
            yield ("close" if character == ")" else "branch"), character
            place += 1
        elif found is not None:
            yield "held" if found[2] == "+" else _name_quantifier(found[1]), found[0]
            place = found.end()
        else:
            yield "other", character
            place += 1


def _name_quantifier(quantifier: str) -> str:
    if _is_unbounded(quantifier):
        return "repeat"
    low, _, high = quantifier.strip("{}").partition(",")
    return "vary" if quantifier == "?" or (high or low) in ("", "0", "1") else "several"


def _is_unbounded(quantifier: str) -> bool:
    if quantifier in "*+?":
        return quantifier != "?"
    low, comma, high = quantifier[1:-1].partition(",")
    return bool(comma) and (not high or int(high) - int(low or 0) > _MOST_REPEATS)


def _find_end(pattern: str, start: int) -> int:
    """Behind a set of characters, in which a bracket at the start is one of them."""
    place = start + 2 if pattern[start + 1 : start + 2] == "^" else start + 1
    place += pattern[place : place + 1] == "]"
    while place < len(pattern) and pattern[place] != "]":
        place += 2 if pattern[place] == "\\" else 1
    return place + 1
