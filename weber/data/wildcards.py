"""Wildcards in captions: one of `{a|b|c}`, and a line of NAME.txt for `__NAME__`; within each other too."""

from __future__ import annotations

import json
import re
from collections.abc import Mapping
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path

from weber.config.data import DataConfig
from weber.data.backends.sources import LOCAL
from weber.data.braces import choose_braces
from weber.data.chances import Chance
from weber.data.words import describe_some
from weber.errors import DataError

_NAME = re.compile(r"__([A-Za-z0-9][\w./-]*?)__")
_MOST_DEPTH = 16
_LARGEST_BYTES = 2**24
_MOST_CHARACTERS = 2**16


@dataclass(frozen=True)
class Wildcards:
    """The lists of a set, by name; `folder` is where they are, None for none."""

    lists: Mapping[str, tuple[str, ...]]
    folder: Path | None = None

    def expand(self, text: str, chance: Chance) -> str:
        """The caption with all wildcards decided; braces without a choice in them and JSON stay, and doubled braces become single ones.

        DataError with a one-line reason for a list that does not exist, and for lists that name each other without end.
        """
        if "{" not in text and "__" not in text:
            return text
        if text[0] in "{[" and _is_json(text):
            return text
        return self._expand(text, chance, depth=0)

    def _expand(self, text: str, chance: Chance, *, depth: int) -> str:
        if depth > _MOST_DEPTH or len(text) > _MOST_CHARACTERS:
            raise DataError("wildcards without end: lists that name themselves, or each other")
        chosen = choose_braces(text, chance)
        parts, start = [], 0
        for found in _NAME.finditer(chosen):
            lines = self._find(found[1])
            line = lines[chance.choose(len(lines))]
            parts += [chosen[start : found.start()], self._expand(line, chance, depth=depth + 1)]
            start = found.end()
        return "".join([*parts, chosen[start:]])

    def _find(self, name: str) -> tuple[str, ...]:
        lines = self.lists.get(name.lower())
        if lines is None:
            there = "the step names no folder" if self.folder is None else f"{self.folder} has {describe_some(sorted(self.lists))}"
            raise DataError(f"unknown wildcard: __{name}__, but {there}")
        return lines


def load_wildcards(folder: Path | None, *, key: str) -> Wildcards:
    """Every NAME.txt below a folder. DataError for a folder without any, and for lists that are empty or no text."""
    if folder is None:
        return Wildcards({})
    top = folder.absolute()
    try:
        paths = _list_files(top)
    except DataError as error:
        raise DataError(f'{key} = "{folder}" cannot be read', got=error.what, fix=f"set {key} to the folder of the lists") from error
    if not paths:
        raise DataError(
            f'{key} = "{folder}" has no lists',
            got="no file that ends in .txt",
            expected="NAME.txt with one text per line, for __NAME__ in captions",
            fix="write the lists, or name the folder that they are in",
        )
    lists: dict[str, tuple[str, ...]] = {}
    for path in paths:
        lists[path.relative_to(top).with_suffix("").as_posix().lower()] = _read_list(path)
    return Wildcards(lists, folder)


def list_wildcard_files(config: DataConfig) -> list[Path]:
    """The lists that the steps of a set may read; of folders that cannot be listed none."""
    folders = dict.fromkeys(one.folder.absolute() for one in config.caption_steps if one.folder is not None)
    found: list[Path] = []
    for folder in folders:
        with suppress(DataError):
            found += _list_files(folder)
    return found


def _list_files(folder: Path) -> list[Path]:
    return [folder / name for name in LOCAL.list(folder, recursive=True).names if name.lower().endswith(".txt")]


def _read_list(path: Path) -> tuple[str, ...]:
    try:
        data = LOCAL.read(path)
    except DataError as error:
        raise DataError(f"the list of wildcards {path} cannot be read", got=error.what, fix="make it readable, or remove it") from error
    if len(data) > _LARGEST_BYTES:
        raise DataError(f"the list of wildcards {path} is too large", got=f"{len(data):,} bytes", fix="keep a part of it")
    try:
        text = data.decode("utf-8-sig")
    except UnicodeDecodeError as error:
        raise DataError(f"the list of wildcards {path} is not UTF-8 text", got=str(error), fix="save it as UTF-8") from error
    lines = tuple(line.strip() for line in text.replace("\r", "\n").split("\n") if line.strip() and not line.lstrip().startswith("#"))
    if not lines:
        raise DataError(
            f"the list of wildcards {path} is empty",
            got="no line that is no remark",
            expected="one text per line",
            fix="write lines into it, or remove the file",
        )
    return lines


def _is_json(text: str) -> bool:
    try:
        return isinstance(json.loads(text), dict | list)
    except (ValueError, RecursionError):
        return False
