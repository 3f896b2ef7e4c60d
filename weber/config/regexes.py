"""Regular expressions that a person writes: whether they are valid, and whether they would ever end."""

from __future__ import annotations

import re
from collections.abc import Iterator

_QUANTIFIER = re.compile(r"([*+]|\{\d*,?\d*\})([?+]?)")
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
            f"find = '{pattern}' repeats what repeats, which may take for ever on a caption that nearly matches; write the inner repeat as"
            " possessive, such as \\w++, or without the outer one"
        )
    if compiled.groups and _GROUP_NAME.search(replacement):
        return f"replace_with = '{replacement}' names a group as other languages do; write \\1 for the first group"
    try:
        compiled.sub(replacement, "")
    except (re.error, IndexError) as error:
        return f"replace_with = '{replacement}' does not fit find, {error}; write \\1 for the first group, and \\\\ for a backslash"
    return ""


def _is_endless(pattern: str) -> bool:
    """Is there a repeat in a repeat, of which neither holds on to what it has (possessive, atomic)?"""
    inside: list[tuple[bool, bool]] = []  # of each open group: does it hold a repeat, is it atomic?
    repeats = False  # what stands before the place: a group that holds a repeat?
    has_repeat = False
    for kind, text in _list_parts(pattern):
        if kind == "open":
            inside.append((has_repeat, text.startswith("(?>")))
            has_repeat = repeats = False
        elif kind == "close":
            if not inside:
                return False
            above, is_atomic = inside.pop()
            repeats = has_repeat and not is_atomic
            has_repeat = above or repeats
        elif kind == "repeat":
            if repeats:
                return True
            has_repeat = True
        else:
            repeats = False
    return False


def _list_parts(pattern: str) -> Iterator[tuple[str, str]]:
    """The parts of a valid pattern: `open` and `close` of groups, an unbounded `repeat`, and anything else as `other`."""
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
        elif character in "()":
            yield ("open" if character == "(" else "close"), pattern[place : place + 3]
            place += 1
        elif found is not None:
            if found[2] != "+" and _is_unbounded(found[1]):
                yield "repeat", found[0]
            elif found[2] == "+":
                yield "other", found[0]
            place = found.end()
        else:
            yield "other", character
            place += 1


def _is_unbounded(quantifier: str) -> bool:
    if quantifier in "*+":
        return True
    low, comma, high = quantifier[1:-1].partition(",")
    return bool(comma) and (not high or int(high) - int(low or 0) > _MOST_REPEATS)


def _find_end(pattern: str, start: int) -> int:
    """Behind a set of characters, in which a bracket at the start is one of them."""
    place = start + 2 if pattern[start + 1 : start + 2] == "^" else start + 1
    place += pattern[place : place + 1] == "]"
    while place < len(pattern) and pattern[place] != "]":
        place += 2 if pattern[place] == "\\" else 1
    return place + 1
