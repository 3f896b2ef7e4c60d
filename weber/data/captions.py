"""The captions of a picture: from a file beside it, its own name, or the set."""

from __future__ import annotations

import json
from dataclasses import dataclass
from pathlib import Path

from weber.config.data import CaptionPer, DataConfig
from weber.errors import DataError

CAPTION_SUFFIXES = (".txt", ".caption")
"""Endings of caption files; of two files the first counts."""

LARGEST_BYTES = 2**20
"""Of a caption file. Whatever is larger is a book or a log."""

_BRACKETS = {"{": "}", "[": "]"}


@dataclass(frozen=True)
class CaptionFile:
    """What a caption file holds; or the `reason` why it is unusable. `is_json`: as a whole, in several lines."""

    captions: tuple[str, ...] = ()
    is_json: bool = False
    reason: str = ""


def read_captions(data: bytes, per: CaptionPer | None = None) -> CaptionFile:
    """Captions in a caption file's bytes, UTF-8: see `data.caption_per`. Raises DataError with a one-line reason."""
    if len(data) > LARGEST_BYTES:
        raise DataError(f"caption file is too large: {len(data):,} bytes")
    try:
        text = data.decode("utf-8-sig")
    except UnicodeDecodeError as error:
        raise DataError("caption file is not UTF-8 text") from error
    if "\0" in text:
        raise DataError("caption file is not UTF-8 text")
    text = text.replace("\r\n", "\n").replace("\r", "\n").strip()
    # str.splitlines would also cut at characters that stand inside captions, such as U+0085 and U+2028
    lines = tuple(line.strip() for line in text.split("\n") if _says_something(line))
    if not lines:
        raise DataError("caption file is empty")
    is_json = len(lines) > 1 and _is_json(text, first=lines[0], is_chosen=per is not None)
    return CaptionFile((text,) if per == "file" or (is_json and per is None) else lines, is_json)


def _says_something(line: str) -> bool:
    """Is there anything to see, other than spaces and marks without width?"""
    return any(character.isprintable() and not character.isspace() for character in line)


def build_captions(picture: Path, config: DataConfig) -> tuple[str, ...]:
    """Captions of a picture that need no file beside it (`captions` other than `textfile`); at each use one is drawn."""
    if config.captions == "filename":
        return (picture.stem.replace("_", " "),)
    if config.instance_prompt is not None:
        return (config.instance_prompt,) if isinstance(config.instance_prompt, str) else tuple(config.instance_prompt)
    return ("",)


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
        where = f"line {error.lineno}: {error.msg}" if isinstance(error, json.JSONDecodeError) else str(error)
        raise DataError(f"caption file is broken JSON: {where}") from error
