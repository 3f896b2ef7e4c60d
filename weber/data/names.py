"""Names of files, compared as they are read: composed and decomposed letters are the same (archives from macOS have the latter)."""

from __future__ import annotations

import unicodedata
from collections.abc import Iterable
from pathlib import Path
from typing import Generic, TypeVar

from weber.config.elsewhere import find_scheme

_T = TypeVar("_T")


def normalize_name(name: str) -> str:
    """One spelling for names that look alike (Unicode NFC)."""
    return unicodedata.normalize("NFC", name)


class ByName(Generic[_T]):
    """Things by their names, several of which may be alike."""

    def __init__(self, items: Iterable[tuple[str, _T]]) -> None:
        self._exact: dict[str, list[_T]] = {}
        self._alike: dict[str, list[_T]] = {}
        for name, item in items:
            self._exact.setdefault(name, []).append(item)
            self._alike.setdefault(normalize_name(name), []).append(item)

    def find(self, name: str) -> list[_T]:
        """The things of exactly that name, else of those that look like it."""
        return self._exact.get(name) or self._alike.get(normalize_name(name), [])


def find_spelled(path: Path) -> Path:
    """The path as it is spelled on the disk; unchanged where it is there, where nothing there looks like it, and if it is on none."""
    if find_scheme(path) or _is_there(path):
        return path
    found = Path(path.anchor)
    for part in path.parts[1:] if path.anchor else path.parts:
        found = found / (part if _is_there(found / part) else _choose_alike(found, part))
    return found if _is_there(found) else path


def _choose_alike(folder: Path, name: str) -> str:
    try:
        names = [path.name for path in folder.iterdir()]
    except (OSError, ValueError):
        return name
    return next((one for one in names if normalize_name(one) == normalize_name(name)), name)


def _is_there(path: Path) -> bool:
    try:
        return path.exists()
    except (OSError, ValueError):  # ValueError: a character that no path can have
        return False
