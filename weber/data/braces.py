"""Choices in braces: `{a|b}`, within each other too; `{{a|b}}` is the text `{a|b}`, and braces without a choice are text."""

from __future__ import annotations

import re
from dataclasses import dataclass, field

from weber.data.chances import Chance
from weber.errors import DataError

_SIGN = re.compile(r"[{|}]")
_SPACES = re.compile(r" {2,}")
_MOST_DEPTH = 64
_DYNAMIC = re.compile(r"\s*[\d.-]+(::|\$\$)")


@dataclass
class _Group:
    """What is between two braces: options, each a list of texts and groups; `start` is where its brace is."""

    start: int
    end: int = 0
    options: list[list[str | _Group]] = field(default_factory=lambda: [[]])


def choose_braces(text: str, chance: Chance) -> str:
    """A text with every choice decided; inner ones only where they are in what was chosen. Spaces around options stay, but for doubled
    ones. DataError with a one-line reason for choices with weights, which other programs know."""
    if "{" not in text:
        return text
    decided = _decide(_parse(text), text, chance)
    return decided if decided == text else _SPACES.sub(" ", decided)


def _parse(text: str) -> list[str | _Group]:
    opened, start = [_Group(-1)], 0
    for found in _SIGN.finditer(text):
        sign, place = found[0], found.start()
        top = opened[-1]
        top.options[-1].append(text[start:place])
        start = place + 1
        if len(opened) > _MOST_DEPTH:
            raise DataError(f"wildcards in wildcards: more than {_MOST_DEPTH} braces are open at once")
        if sign == "{":
            opened.append(_Group(place))
        elif len(opened) == 1:
            top.options[-1].append(sign)
        elif sign == "|":
            top.options.append([])
        else:
            top.end = start
            opened[-2].options[-1].append(opened.pop())
    opened[-1].options[-1].append(text[start:])
    while len(opened) > 1:  # what never closes is text
        lost = opened.pop()
        opened[-1].options[-1] += ["{", *lost.options[0], *(part for option in lost.options[1:] for part in ("|", *option))]
    return opened[0].options[0]


def _decide(parts: list[str | _Group], text: str, chance: Chance) -> str:
    return "".join(part if isinstance(part, str) else _decide_group(part, text, chance) for part in parts)


def _decide_group(group: _Group, text: str, chance: Chance) -> str:
    if len(group.options) > 1:
        _check_plain(group, text)
        return _decide(group.options[chance.choose(len(group.options))], text, chance)
    inside = [part for part in group.options[0] if part]
    if len(inside) == 1 and isinstance(inside[0], _Group):
        return text[inside[0].start : inside[0].end]
    return "{" + _decide(group.options[0], text, chance) + "}"


def _check_plain(group: _Group, text: str) -> None:
    for option in group.options:
        if option and isinstance(option[0], str) and _DYNAMIC.match(option[0]):
            raise DataError(f"wildcard with a weight or a number: {text[group.start : group.end]}: write an option several times instead")
