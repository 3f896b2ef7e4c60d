"""The files of a folder by what they are: pictures, what looks like one and cannot be read, captions, and all else."""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from weber.data.backends.backend import Backend, Listing
from weber.data.captions import CAPTION_SUFFIXES
from weber.data.formats import START_BYTES, SUFFIXES, explain_ending, explain_start, is_picture
from weber.data.words import describe_count
from weber.errors import DataError

_NUM_SHOWN = 4


@dataclass(frozen=True)
class Files:
    """Names below `folder`. `unread` says why of each file, as `kind: advice`; pictures may turn out to be damaged."""

    folder: Path
    pictures: Sequence[str]
    unread: Mapping[str, str]
    captions: Sequence[str]
    others: Sequence[str]


def sort_files(listing: Listing, files: Backend) -> Files:
    """What each file is, by its ending; by its first bytes where that says nothing."""
    pictures: list[str] = []
    unread: dict[str, str] = {}
    captions: list[str] = []
    others: list[str] = []
    for name in listing.names:
        suffix = find_suffix(name)
        if name in listing.broken:
            unread[name] = listing.broken[name]
            continue
        if suffix in SUFFIXES:
            pictures.append(name)
            continue
        if suffix in CAPTION_SUFFIXES:
            captions.append(name)
            continue
        start, reason = b"", explain_ending(name)
        if not reason:
            start = _read_start(listing.folder / name, files)
            reason = explain_start(start)
        if is_picture(start):
            pictures.append(name)
        elif reason:
            unread[name] = reason
        else:
            others.append(name)
    return Files(listing.folder, pictures, unread, captions, others)


def find_last(name: str) -> str:
    """A file's name without the folders before it."""
    return name[name.rfind("/") + 1 :]


def find_suffix(name: str) -> str:
    """The ending of a file's name in small letters, as `Path.suffix` has it."""
    name = find_last(name)
    dot = name.rfind(".")
    return name[dot:].lower() if 0 < dot < len(name) - 1 else ""


def describe_kinds(names: Sequence[str]) -> str:
    """How many files of which endings: `2 x .json, 1 x no ending`."""
    kinds = Counter(find_suffix(name) or "no ending" for name in names).most_common()
    more = f", and {describe_count(len(kinds) - _NUM_SHOWN, 'more kind')}" if len(kinds) > _NUM_SHOWN + 1 else ""
    return ", ".join(f"{number} x {kind}" for kind, number in kinds[: _NUM_SHOWN if more else None]) + more


def _read_start(path: Path, files: Backend) -> bytes:
    try:
        return files.read_part(path, 0, num_bytes=START_BYTES)
    except DataError:
        return b""
