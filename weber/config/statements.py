"""Where the statements of a TOML text stand: its headers and its pairs, each with the place that it means and the characters it takes.

For texts that a parser has accepted; `edits.py` changes them in place, so that comments, order and spelling stay as they are.
"""

from __future__ import annotations

import json
import re
from dataclasses import dataclass

Place = tuple[int | str, ...]
"""Names and numbers from the root: `("data", 0, "path")`."""

_KEY = re.compile(r"\s*(?:([A-Za-z0-9_-]+)|(\"(?:[^\"\\\n]|\\.)*\")|('[^'\n]*'))[ \t]*(\.|)")
_STRING = re.compile(
    r'"""(?:[^"\\]|\\.|"{1,2}(?!"))*"{3,5}|\'\'\'(?:[^\']|\'{1,2}(?!\'))*\'{3,5}|"(?:[^"\\\n]|\\.)*"|\'[^\'\n]*\'', re.DOTALL
)
_PLAIN = re.compile(r"[^\"'\[\]{}#\n]+")


@dataclass(frozen=True)
class Statement:
    """A header or a pair. `place`: of the table that a header opens, or of the pair's value; `table`: of the header that a pair is under,
    and of a header itself.

    `start` to `end`: its lines, with the last line break; `value_start` to `value_end`: the value alone.
    """

    place: Place
    table: Place
    is_header: bool
    start: int
    end: int
    value_start: int = 0
    value_end: int = 0


def list_statements(text: str) -> list[Statement]:
    """All of them, in order."""
    found, table, counts, position = list[Statement](), Place(), dict[Place, int](), 0
    while position < len(text):
        start = position
        position += len(text[position:]) - len(text[position:].lstrip(" \t"))
        if text[position : position + 1] == "[":
            is_list = text.startswith("[[", position)
            names, _ = _read_names(text, position + 1 + is_list)
            table = _resolve(names, counts, is_list=is_list)
            position = _find_line_end(text, position)
            found.append(Statement(table, table, True, start, position))
        elif text[position : position + 1] in ("", "\n", "#"):
            position = _find_line_end(text, position)
        else:
            names, equals = _read_names(text, position)
            value_start = equals + 1 + len(text[equals + 1 :]) - len(text[equals + 1 :].lstrip(" \t"))
            value_end = _find_value_end(text, value_start)
            position = _find_line_end(text, value_end)
            found.append(Statement((*table, *names), table, False, start, position, value_start, value_end))
    return found


def _read_names(text: str, position: int) -> tuple[list[str], int]:
    """The parts of a dotted key, and the position behind it."""
    names = []
    while True:
        found = _KEY.match(text, position)
        assert found is not None
        bare, double, single, point = found.groups()
        names.append(bare if bare is not None else _unquote(double) if double is not None else single[1:-1])
        position = found.end()
        if not point:
            return names, position


def _unquote(text: str) -> str:
    """A key in double quotes; JSON lacks the long escapes alone."""
    return str(json.loads(re.sub(r"\\U([0-9A-Fa-f]{8})", lambda one: chr(int(one[1], 16)), text), strict=False))


def _resolve(names: list[str], counts: dict[Place, int], *, is_list: bool) -> Place:
    """The table that a header means: names of lists of tables mean their last entry, or with two brackets at the end a new one."""
    place: Place = ()
    for depth, name in enumerate(names, 1):
        place = (*place, name)
        if is_list and depth == len(names):
            counts[place] = counts.get(place, 0) + 1
        if place in counts:
            place = (*place, counts[place] - 1)
    return place


def _find_value_end(text: str, position: int) -> int:
    """Behind the value that starts there: at a comment or at the end of the line, outside of texts and brackets."""
    depth, end = 0, position
    while position < len(text):
        character = text[position]
        if character == "#":
            if depth == 0:
                return end
            position = _find_line_end(text, position) - 1
        elif character == "\n":
            if depth == 0:
                return end
            position += 1
        elif character in "\"'":
            found = _STRING.match(text, position)
            assert found is not None
            position = end = found.end()
        elif character in "[]{}":
            depth += 1 if character in "[{" else -1
            position = end = position + 1
        else:
            found = _PLAIN.match(text, position)
            assert found is not None
            position = found.end()
            end = found.start() + len(found[0].rstrip()) if found[0].strip() else end
    return end


def _find_line_end(text: str, position: int) -> int:
    """Behind the next line break."""
    found = text.find("\n", position)
    return len(text) if found < 0 else found + 1
