"""Captions as they are read: from a file, a name, or the set."""

from __future__ import annotations

import json
import re
from collections.abc import Sequence
from dataclasses import dataclass

from weber.config.data import CaptionPer
from weber.data.table import CAPTION_COLUMNS
from weber.errors import DataError

CAPTION_SUFFIXES = (".txt", ".caption")
"""Endings of caption files; of two files the first counts."""

LARGEST_BYTES = 2**20
"""Of a caption file. Whatever is larger is a book or a log."""

_REPEATS_NAME = re.compile(r"(\d{1,3})_(.+)")
_SHOWN = 40
_BRACKETS = {"{": "}", "[": "]"}


@dataclass(frozen=True)
class CaptionFile:
    """What a caption file holds; or the `reason` why it is unusable. `is_json`: as a whole, in several lines.

    Of a file with captions under names, `places` has those of each name that was asked for, in order.
    """

    captions: tuple[str, ...] = ()
    is_json: bool = False
    reason: str = ""
    places: tuple[tuple[str, ...], ...] = ()


def read_captions(data: bytes, per: CaptionPer | None = None) -> CaptionFile:
    """Captions in a caption file's bytes, UTF-8: see `data.caption_per`. Raises DataError with a one-line reason."""
    text = _decode(data).replace("\r\n", "\n").replace("\r", "\n").strip()
    # str.splitlines would also cut at characters that stand inside captions, such as U+0085 and U+2028
    lines = tuple(line.strip() for line in text.split("\n") if _says_something(line))
    if not lines:
        raise DataError("caption file is empty")
    is_json = len(lines) > 1 and _is_json(text, first=lines[0], is_chosen=per is not None)
    return CaptionFile((text,) if per == "file" or (is_json and per is None) else lines, is_json)


def _says_something(line: str) -> bool:
    """Is there anything to see, other than spaces and marks without width?"""
    return any(character.isprintable() and not character.isspace() for character in line)


def read_keyed_captions(data: bytes, keys: Sequence[str]) -> CaptionFile:
    """Captions in a JSON file's bytes, under each of the keys, or without keys under the first usual one that is there.

    A list under a key is several captions. Raises DataError with a one-line reason.
    """
    text = _decode(data)
    if not text.strip():
        raise DataError("caption file is empty")
    try:
        tree = json.loads(text)
    except (ValueError, RecursionError) as error:
        raise DataError(f"caption file is no JSON: {_describe_break(error)}") from error
    if not isinstance(tree, dict):
        raise DataError('caption file is no table of names: it should be like {"caption": "a cat"}')
    alike = {str(name).lower(): name for name in reversed(tree)}
    wanted = [*keys] or [alike[name] for name in CAPTION_COLUMNS if name in alike][:1]
    places = tuple(_read_items(tree.get(key), key) for key in wanted)
    if not any(places):
        listed = ", ".join(map(repr, keys or CAPTION_COLUMNS))
        raise DataError(f"caption file has no caption: nothing under {listed}, only under {', '.join(map(repr, tree)) or 'no name'}")
    return CaptionFile(next(place for place in places if place), places=places)


def _read_items(value: object, key: str) -> tuple[str, ...]:
    items = value if isinstance(value, list) else [] if value is None else [value]
    texts = []
    for item in items:
        if not isinstance(item, str):
            raise DataError(f"caption file has no text under its name: {key!r} holds {json.dumps(item)[:_SHOWN]}")
        texts += [item.strip()] if _says_something(item) else []
    return tuple(texts)


def _decode(data: bytes) -> str:
    if len(data) > LARGEST_BYTES:
        raise DataError(f"caption file is too large: {len(data):,} bytes")
    try:
        text = data.decode("utf-8-sig")
    except UnicodeDecodeError as error:
        raise DataError("caption file is not UTF-8 text") from error
    if "\0" in text:
        raise DataError("caption file is not UTF-8 text")
    return text


def read_repeat_name(name: str) -> tuple[int, str] | None:
    """How often, and what, the name of a folder says, as kohya's trainer reads it (`10_word class`); None for any other name."""
    found = _REPEATS_NAME.fullmatch(name)
    return (int(found[1]), found[2]) if found and int(found[1]) > 0 else None


def read_folder_name(name: str) -> str:
    """The caption that the name of a folder is: `_` is a space, and a number of repeats before it is none of its words."""
    said = read_repeat_name(name)
    return (name if said is None else said[1]).replace("_", " ").strip()


def _is_json(text: str, *, first: str, is_chosen: bool) -> bool:
    """Is a text of several lines JSON as a whole? Raises DataError for what is meant to be and is broken, unless it `is_chosen` how it is
    read."""
    if text[0] not in _BRACKETS:
        return False
    try:
        return isinstance(json.loads(text), dict | list)
    except (ValueError, RecursionError) as error:
        if is_chosen or first not in _BRACKETS:
            return False
        raise DataError(f"caption file is broken JSON: {_describe_break(error)}") from error


def _describe_break(error: Exception) -> str:
    return f"line {error.lineno}: {error.msg}" if isinstance(error, json.JSONDecodeError) else str(error)
