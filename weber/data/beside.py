"""What belongs to the pictures of a set and lies in a folder of its own: references and masks, found by their names."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from pathlib import Path

from weber.data.backends.local import LocalBackend
from weber.data.files import sort_files
from weber.data.left_out import leave_out
from weber.data.names import ByName
from weber.data.words import describe_count, describe_some
from weber.errors import DataError


class Beside:
    """The pictures of a folder by their names below it, without endings. `kind` is what they are to the pictures of a set."""

    def __init__(self, kind: str, folder: Path, *, recursive: bool, own: Sequence[Path]) -> None:
        self.kind, self.folder = kind, folder.absolute()
        listed = leave_out(LocalBackend().list(self.folder, recursive=recursive), self.folder, own=own)
        files = sort_files(listed.files)
        self._unread = files.unread
        self.paths = [*files.pictures, *files.unread]
        self._stems = ByName((find_stem(path, self.folder), path) for path in self.paths)
        self._shown = folder
        self.used: set[Path] = set()

    def find(self, path: Path, home: Path) -> Path | None:
        """The file of a picture below `home`: of its name, or the only one of its stem; None where there is none.

        Raises DataError with a one-line reason where there are several, and where it is of a kind that cannot be read.
        """
        found = self._stems.find(find_stem(path, home))
        chosen = [one for one in found if one.name == path.name] or found
        self.used.update(chosen)
        if len(chosen) > 1:
            raise DataError(f"several {self.kind}s: {' and '.join(one.name for one in chosen)} in {self._shown}")
        if chosen and chosen[0] in self._unread:
            raise DataError(f"unusable {self.kind}: {chosen[0].name}: {self._unread[chosen[0]]}")
        return chosen[0] if chosen else None

    def need(self, path: Path, home: Path) -> Path:
        """As `find`; there has to be one."""
        found = self.find(path, home)
        if found is None:
            raise DataError(f"no {self.kind}: {find_stem(path, home)} in {self._shown}")
        return found


def find_stem(path: Path, folder: Path) -> str:
    """The picture's name below its folder, without ending."""
    below = path.relative_to(folder) if path.is_relative_to(folder) else Path(path.name)
    return below.with_suffix("").as_posix()


def describe_unused(folders: Iterable[Beside]) -> list[str]:
    """A line for each folder that has files which belong to no picture of any set."""
    merged: dict[tuple[str, Path], list[Beside]] = {}
    for one in folders:
        merged.setdefault((one.kind, one.folder), []).append(one)
    lines = []
    for (kind, folder), several in merged.items():
        used = {path for one in several for path in one.used}
        unused = [path.relative_to(folder).as_posix() for path in several[0].paths if path not in used]
        if unused:
            count = describe_count(len(unused), kind)
            lines.append(f"{folder}: {count} without a picture of that name: {describe_some(unused)}")
    return lines
