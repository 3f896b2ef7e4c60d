"""The files of a folder by what they are: pictures, what looks like one and cannot be read, captions, and all else."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from weber.data.backends.local import LocalBackend
from weber.data.captions import CAPTION_SUFFIXES
from weber.data.formats import START_BYTES, SUFFIXES, explain_ending, explain_start, is_picture
from weber.data.words import describe_count
from weber.errors import DataError

_NUM_SHOWN = 4


@dataclass(frozen=True)
class Files:
    """`unread` says why of each file, as `kind: advice`; pictures may turn out to be damaged."""

    pictures: Sequence[Path]
    unread: Mapping[Path, str]
    captions: Sequence[Path]
    others: Sequence[Path]


def sort_files(paths: Iterable[Path]) -> Files:
    """What each file is, by its ending; by its first bytes where that says nothing."""
    pictures: list[Path] = []
    unread: dict[Path, str] = {}
    captions: list[Path] = []
    others: list[Path] = []
    for path in paths:
        suffix, reason = path.suffix.lower(), explain_ending(path.name)
        start = _read_start(path) if not reason and suffix not in SUFFIXES and suffix not in CAPTION_SUFFIXES else b""
        reason = reason or explain_start(start)
        if suffix in CAPTION_SUFFIXES:
            captions.append(path)
        elif suffix in SUFFIXES or is_picture(start):
            pictures.append(path)
        elif reason:
            unread[path] = reason
        else:
            others.append(path)
    return Files(pictures, unread, captions, others)


def describe_kinds(paths: Sequence[Path]) -> str:
    """How many files of which endings: `2 x .json, 1 x no ending`."""
    kinds = Counter(path.suffix.lower() or "no ending" for path in paths).most_common()
    more = f", and {describe_count(len(kinds) - _NUM_SHOWN, 'more kind')}" if len(kinds) > _NUM_SHOWN + 1 else ""
    return ", ".join(f"{number} x {kind}" for kind, number in kinds[: _NUM_SHOWN if more else None]) + more


def _read_start(path: Path) -> bytes:
    try:
        return LocalBackend().read_start(path, START_BYTES)
    except DataError:
        return b""
