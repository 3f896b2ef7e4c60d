"""What was done to files, written down before it is done, so that it can be undone: files that were moved, and texts that were changed."""

from __future__ import annotations

import json
import os
import shutil
from collections.abc import Mapping, Sequence
from hashlib import blake2b
from pathlib import Path
from typing import NamedTuple

from weber.data.whole import write_whole
from weber.data.words import describe_count
from weber.errors import ConfigError, DataError

_MOVES, _TEXTS = "moves", "texts"
_LOSSLESS = "surrogateescape"  # a text that is no UTF-8 comes back as it was too
_UNDO = "undo"
_DONE = ".undone"


Row = Mapping[str, str | None]
"""A text file: where it is, what it held, None if it was not there, and what it holds since, hashed."""


class Move(NamedTuple):
    """A file and where it goes."""

    source: Path
    target: Path


class Undone(NamedTuple):
    """How many files are as they were, and what could not be undone, with the reason."""

    num_files: int
    left: list[str]


def write_moves(folder: Path, moves: Sequence[Move]) -> Path:
    """Move files, after a file in that folder says how they come back; returns that."""
    rows = [{"source": _encode(move.source), "target": _encode(move.target)} for move in moves]
    record = _write_record(folder, {_MOVES: rows})
    for move in moves:
        move.target.parent.mkdir(parents=True, exist_ok=True)
        shutil.move(move.source, move.target)
    return record


def write_texts(folder: Path, texts: Mapping[Path, str]) -> Path:
    """Write text files, after a file in that folder says what they held; returns that."""
    record = write_record(folder, [build_row(file, text) for file, text in texts.items()])
    for file, text in texts.items():
        try:
            write_whole(file, text.encode())
        except DataError as error:
            raise DataError(
                error.what, got=error.got, fix=f"{error.fix}; `weber data undo {record}` takes back what was changed"
            ) from error
    return record


def build_row(file: Path, text: str) -> Row:
    """What undoes that a file will hold a text; made before it does."""
    return {"file": _encode(file), "before": _read(file), "after": _name_text(text)}


def is_untouched(row: Row) -> bool:
    """Whether a file still is as it was when its row was made, though it was to become another one."""
    before = row["before"]
    return _read(_decode(str(row["file"]))) == before and (before is None or _name_text(before) != row["after"])


def write_record(folder: Path, rows: Sequence[Row]) -> Path:
    """A file in that folder with all that undoes texts; returns it."""
    return _write_record(folder, {_TEXTS: rows})


def undo(record: Path) -> Undone:
    """Put files back as they were. What was changed since stays as it is. The record is renamed when all is done."""
    tree = _read_record(record)
    left = [problem for row in tree.get(_MOVES, []) if (problem := _move_back(_decode(row["source"]), _decode(row["target"])))]
    left += [problem for row in tree.get(_TEXTS, []) if (problem := _write_back(row))]
    if not left:
        os.replace(record, record.with_name(record.name + _DONE))
    return Undone(sum(map(len, tree.values())) - len(left), left)


def _move_back(source: Path, target: Path) -> str:
    if source.exists():
        return "" if not target.exists() else f"{source}: there is a file again"
    if not target.exists():
        return f"{target}: it is not there any more"
    source.parent.mkdir(parents=True, exist_ok=True)
    shutil.move(target, source)
    return ""


def _write_back(row: Row) -> str:
    file, before = _decode(str(row["file"])), row["before"]
    now = _read(file)
    if now == before:
        return ""
    if (None if now is None else _name_text(now)) != row["after"]:
        return f"{file}: it was changed since"
    if before is None:
        file.unlink()
    else:
        write_whole(file, before.encode(errors=_LOSSLESS))
    return ""


def _write_record(folder: Path, tree: Mapping[str, Sequence[Row]]) -> Path:
    number = 1
    while any((folder / f"{_UNDO}-{number:04}.json{ending}").exists() for ending in ("", _DONE)):
        number += 1
    record = folder / f"{_UNDO}-{number:04}.json"
    write_whole(record, (json.dumps(tree, indent=1) + "\n").encode())
    return record


def _read_record(record: Path) -> dict[str, list[dict[str, str]]]:
    try:
        tree = json.loads(record.read_text(encoding="utf-8"))
    except FileNotFoundError as error:
        raise DataError("There is no such file.", got=str(record), fix="name the undo file that the command has told") from error
    except ValueError as error:
        raise DataError("This is no undo file.", got=str(record), expected="a file that weber has written", fix="name that") from error
    if not isinstance(tree, dict) or not {_MOVES, _TEXTS} & tree.keys():
        raise ConfigError("This is no undo file.", got=f"{record} with {describe_count(len(tree), 'entry')}", fix="name undo-NUMBER.json")
    return tree


def _read(file: Path) -> str | None:
    try:
        return file.read_bytes().decode("utf-8", errors=_LOSSLESS)
    except FileNotFoundError:
        return None


def _name_text(text: str) -> str:
    return blake2b(text.encode(errors=_LOSSLESS), digest_size=16).hexdigest()


def _encode(path: Path) -> str:
    """Whole; a name that is no Unicode too."""
    return str(path.absolute()).encode(errors="surrogateescape").decode("latin-1")


def _decode(text: str) -> Path:
    return Path(text.encode("latin-1").decode(errors="surrogateescape"))
