"""Changes of a TOML text in place: a value is put there or taken out, and every other line stays as somebody has written it."""

from __future__ import annotations

import copy
import tomllib
from collections.abc import Sequence
from typing import Any

from weber.config.load import place_value
from weber.config.statements import Place, Statement, list_statements
from weber.config.toml import write_key, write_value
from weber.errors import ConfigError

_WIDTH = 120


def write_setting(text: str, key: str, *, value: object) -> str:
    """The text with the value at a dotted key; None takes it out, be it a value, a table or an entry of a list.

    Raises ConfigError where the key leads into something that is no table, and for a text in which that cannot be done in place.
    """
    place = tuple(int(part) if part.isdecimal() else part for part in key.split("."))
    tree: dict[str, Any] = tomllib.loads(text)
    expected = copy.deepcopy(tree)
    if value is None:
        _drop(expected, place)
    else:
        place_value(expected, key, value=copy.deepcopy(value))
    if expected == tree:
        return text
    changed = _take_out(text, place, tree) if value is None else _put(text, place, value, tree)
    return _check(key, changed, expected=expected)


def move_entry(text: str, key: str) -> str:
    """The text with an entry of a list, such as `data.0.caption_steps.1`, before the one that it was behind. Raises ConfigError likewise,
    and where there is no such entry."""
    *above, last = key.split(".")
    place, number = tuple(int(part) if part.isdecimal() else part for part in above), int(last) if last.isdecimal() else 0
    tree: dict[str, Any] = tomllib.loads(text)
    expected = copy.deepcopy(tree)
    entries = expected
    for part in place:
        entries = _step(entries, part)
    if not isinstance(entries, list) or not 0 < number < len(entries):
        raise ConfigError(f"There is no entry {key} that is behind another one.", got=key, fix="reload the page")
    entries[number - 1 : number + 1] = [entries[number], entries[number - 1]]
    statements = list_statements(text)
    held = _find_holder(statements, place)
    if held is not None:
        return _check(key, _replace(text, held, place, entries, tree), expected=expected)
    before, behind = (_find_span(text, statements, (*place, one)) for one in (number - 1, number))
    first, second = text[slice(*before)], text[slice(*behind)]
    second += "" if second.endswith("\n") else "\n"
    return _check(key, text[: before[0]] + second + text[before[1] : behind[0]] + first + text[behind[1] :], expected=expected)


def _find_span(text: str, statements: Sequence[Statement], place: Place) -> tuple[int, int]:
    """Where a table in a list begins, with the remarks right above it, and ends, with those right below it."""
    own = [one for one in statements if one.table[: len(place)] == place]
    start, end = own[0].start, own[-1].end
    for line in reversed(text[:start].splitlines(keepends=True)):
        if not line.lstrip().startswith("#"):
            break
        start -= len(line)
    return start, _skip_remarks(text, end)


def _check(key: str, changed: str, *, expected: dict[str, Any]) -> str:
    """The changed text, if a parser reads what is expected of it."""
    got = tomllib.loads(changed)
    if got != _without_empty(expected, got):
        raise ConfigError(
            f"{key} cannot be changed here: the file is written in a way that only its author should change.",
            got="a section in several forms",
            expected="each section once, under its own header",
            fix="edit the file by hand",
        )
    return changed


def _without_empty(expected: dict[str, Any], got: dict[str, Any]) -> dict[str, Any]:
    """A list of tables that has lost its last entry is not there any more; nor is a table of which dotted keys alone spoke."""
    kept: dict[str, Any] = {}
    for name, value in expected.items():
        if name not in got and value in ([], {}):
            continue
        other = got.get(name)
        if isinstance(value, dict) and isinstance(other, dict):
            kept[name] = _without_empty(value, other)
        elif isinstance(value, list) and isinstance(other, list) and len(value) == len(other):
            pairs = zip(value, other, strict=True)
            kept[name] = [_without_empty(a, b) if isinstance(a, dict) and isinstance(b, dict) else a for a, b in pairs]
        else:
            kept[name] = value
    return kept


def _put(text: str, place: Place, value: object, tree: dict[str, Any]) -> str:
    statements = list_statements(text)
    held = _find_holder(statements, place)
    if held is not None:
        return _replace(text, held, place, value, tree)
    if any(one.place[: len(place)] == place for one in statements):  # a table, or a list of them, becomes another value
        text = _take_out(text, place, tree)
        statements = list_statements(text)
    for length in range(2, len(place)):  # the entries of lists that it is in, where they are new
        entry = place[:length]
        if isinstance(entry[-1], int) and not any(one.table[:length] == entry for one in statements):
            text = _add_block(text, statements, entry, {})
            statements = list_statements(text)
    *parent, name = place
    above = tuple(parent)
    if isinstance(name, int):
        assert isinstance(value, dict)
        return _add_block(text, statements, place, value)
    own = [one for one in statements if one.table == above]
    if any(one.is_header for one in own) or not above:
        line = f"{write_key(name)} = {_lay_out(name, value)}\n"
        last = max((one.end for one in own), default=0)
        return _insert(text, last, line)
    beside = [one for one in statements if len(one.table) < len(above) and one.place[: len(above)] == above]
    if beside:  # the table is there by dotted keys alone
        last_one = beside[-1]
        dotted = (*above[len(last_one.table) :], name)
        line = ".".join(write_key(str(part)) for part in dotted) + f" = {_lay_out(name, value)}\n"
        return _insert(text, last_one.end, line)
    return _add_block(text, statements, above, {name: value})


def _find_holder(statements: Sequence[Statement], place: Place) -> Statement | None:
    """The pair whose value is at that place, or has it inside."""
    pairs = (one for one in statements if not one.is_header)
    return next((one for one in pairs if one.place == place[: len(one.place)]), None)


def _replace(text: str, pair: Statement, place: Place, value: object, tree: dict[str, Any]) -> str:
    """The value of a pair in place, or the whole pair where something within is changed."""
    inside = place[len(pair.place) :]
    if inside:
        whole = {"value": copy.deepcopy(_look_up(tree, pair.place))}
        if value is None:
            _drop(whole, ("value", *inside))
        else:
            place_value(whole, ".".join(("value", *map(str, inside))), value=value)
        value = whole["value"]
    return text[: pair.value_start] + _lay_out(str(pair.place[-1]), value) + text[pair.value_end :]


def _drop(tree: Any, place: Place) -> None:
    """Take out of the tree what is at a place, if anything is."""
    for part in place[:-1]:
        tree = _step(tree, part)
    if _step(tree, place[-1]) is not None:
        del tree[place[-1]]


def _step(tree: Any, part: int | str) -> Any:
    if isinstance(tree, list):
        return tree[part] if isinstance(part, int) and part < len(tree) else None
    return tree.get(part) if isinstance(tree, dict) else None


def _look_up(tree: Any, place: Place) -> Any:
    for part in place:
        tree = tree[part]
    return tree


def _add_block(text: str, statements: Sequence[Statement], place: Place, table: dict[str, Any]) -> str:
    """A table of its own, behind everything that belongs to what it is in; a further entry of a list behind the one before."""
    entry = place[-1]
    is_entry = isinstance(entry, int)
    names = ".".join(write_key(part) for part in place if isinstance(part, str))
    lines = [f"[[{names}]]" if is_entry else f"[{names}]"]
    lines += [f"{write_key(name)} = {_lay_out(name, value)}" for name, value in table.items()]
    holders = [(*place[:-1], entry - 1)] if isinstance(entry, int) and entry > 0 else []
    holders += [place[:length] for length in range(len(place) - 1, 0, -1) if isinstance(place[length - 1], int) or length < len(place)]
    for holder in holders:
        below = [one for one in statements if one.table[: len(holder)] == holder]
        if below:
            return _insert_block(text, below[-1].end, lines)
    return _insert_block(text, len(text), lines)


def _insert_block(text: str, position: int, lines: Sequence[str]) -> str:
    """Lines with an empty one before and behind; comments that stand right behind a block are a part of it."""
    position = _skip_remarks(text, position)
    before, behind = text[:position], text[position:]
    if before and not before.endswith("\n"):
        before += "\n"
    gap = "" if not before.strip() or before.endswith("\n\n") else "\n"
    end = "" if not behind or behind.startswith("\n") else "\n"
    return before + gap + "".join(f"{line}\n" for line in lines) + end + behind


def _skip_remarks(text: str, position: int) -> int:
    """Behind the remarks that follow without an empty line, unless they stand right above something else."""
    rest = text[position:].splitlines(keepends=True)
    own = next((number for number, line in enumerate(rest) if not line.lstrip().startswith("#")), len(rest))
    return position + sum(map(len, rest[:own])) if own == len(rest) or not rest[own].strip() else position


def _insert(text: str, position: int, line: str) -> str:
    """A line, also behind a last one without a line break."""
    before = text[:position]
    return before + ("\n" if before and not before.endswith("\n") else "") + line + text[position:]


def _take_out(text: str, place: Place, tree: dict[str, Any]) -> str:
    statements = list_statements(text)
    held = _find_holder(statements, place)
    if held is not None and held.place != place:
        return _replace(text, held, place, None, tree)
    for one in reversed(statements):
        if one.place[: len(place)] == place:
            text = text[: one.start] + text[one.end :]
            if one.is_header:
                text = _close_gap(text, one.start)
    return text


def _close_gap(text: str, position: int) -> str:
    """Where a block was, one empty line is enough."""
    before, behind = text[:position], text[position:]
    while behind.startswith("\n") and (not before or before.endswith("\n\n")):
        behind = behind[1:]
    return before + behind if behind else before.rstrip("\n") + "\n" * bool(before.strip())


def _lay_out(name: str, value: object) -> str:
    """A value; a long list one item per line."""
    line = write_value(value)
    if not isinstance(value, list) or len(name) + len(line) <= _WIDTH or not value:
        return line
    return "[\n" + "".join(f"  {write_value(item)},\n" for item in value) + "]"
