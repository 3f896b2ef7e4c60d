"""What a pattern of module names means, everywhere."""

from __future__ import annotations

import difflib
from collections.abc import Iterable, Sequence
from fnmatch import fnmatchcase

_CUTOFF = 0.3


def is_named(name: str, pattern: str) -> bool:
    """Whether a pattern is the name of a module or its end, at a dot; `*` stands for any text."""
    return fnmatchcase(name, pattern) or fnmatchcase(name, "*." + pattern)


def is_any(name: str, patterns: Iterable[str]) -> bool:
    """Whether one of the patterns means the module."""
    return any(is_named(name, pattern) for pattern in patterns)


def list_meant(names: Iterable[str], patterns: Sequence[str]) -> list[str]:
    """Those modules that one of the patterns means."""
    return [name for name in names if is_any(name, patterns)]


def list_parents(name: str) -> list[str]:
    """`a.b.c` is in `a.b` and in `a`, and it is itself."""
    words = name.split(".")
    return [".".join(words[:number]) for number in range(1, len(words) + 1)]


def list_near(patterns: Iterable[str], names: Sequence[str], *, num: int = 4) -> list[str]:
    """Names that may have been meant by patterns which mean none; where nothing is near, the first ones."""
    near = dict.fromkeys(match for pattern in patterns for match in difflib.get_close_matches(pattern, names, n=3, cutoff=_CUTOFF))
    return list(near)[:num] or list(names[:num])
