"""What belongs to the pictures of a set and lies in a folder of its own: references and masks, found by their names."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import NamedTuple

from weber.config.elsewhere import build_absolute
from weber.data.backends.backend import Backend
from weber.data.files import find_last, find_suffix, sort_files
from weber.data.left_out import leave_out
from weber.data.names import ByName
from weber.data.words import describe_count, describe_some
from weber.errors import DataError


class Beside:
    """The pictures of a folder by their names below it, without endings. `kind` is what they are to the pictures of a set."""

    def __init__(self, kind: str, folder: Path, *, files: Backend, recursive: bool, own: Sequence[Path]) -> None:
        self.kind, self.folder = kind, build_absolute(folder)
        self.listing = leave_out(files.list(self.folder, recursive=recursive), own=own).files
        found = sort_files(self.listing, files)
        self._unread = found.unread
        self.names = [*found.pictures, *found.unread]
        self._stems = ByName((cut_suffix(name), name) for name in self.names)
        self._shown = folder
        self.used: set[str] = set()

    def find(self, name: str) -> Path | None:
        """The file of a picture of that name below its own folder: of its name, or the only one of its stem; None where there is none.

        Raises DataError with a one-line reason where there are several, and where it is of a kind that cannot be read.
        """
        found = self._stems.find(cut_suffix(name))
        chosen = [one for one in found if find_last(one) == find_last(name)] if len(found) > 1 else found
        chosen = chosen or found
        self.used.update(chosen)
        if len(chosen) > 1:
            raise DataError(f"several {self.kind}s: {' and '.join(map(find_last, chosen))} in {self._shown}")
        if chosen and chosen[0] in self._unread:
            raise DataError(f"unusable {self.kind}: {find_last(chosen[0])}: {self._unread[chosen[0]]}")
        return self.folder / chosen[0] if chosen else None

    def need(self, name: str) -> Path:
        """As `find`; there has to be one."""
        found = self.find(name)
        if found is None:
            raise DataError(f"no {self.kind}: {cut_suffix(name)} in {self._shown}")
        return found


def cut_suffix(name: str) -> str:
    """A file's name without its ending."""
    ending = find_suffix(name)
    return name[: len(name) - len(ending)] if ending else name


class Unused(NamedTuple):
    """The names of a folder's files that belong to no picture of a set. `kind` is what they would be."""

    kind: str
    folder: str
    names: Sequence[str]


def list_unused(folders: Iterable[Beside]) -> list[Unused]:
    """What no picture of a set has asked for, once all have been built."""
    return [Unused(one.kind, str(one.folder), [name for name in one.names if name not in one.used]) for one in folders]


def describe_unused(found: Iterable[Unused]) -> list[str]:
    """A line for each folder that has files which belong to no picture of any set."""
    merged: dict[tuple[str, str], list[str]] = {}
    for kind, folder, names in found:
        known = merged.get((kind, folder))
        merged[kind, folder] = list(names) if known is None else [name for name in known if name in set(names)]
    return [
        f"{folder}: {describe_count(len(names), kind)} without a picture of that name: {describe_some(names)}"
        for (kind, folder), names in merged.items()
        if names
    ]
