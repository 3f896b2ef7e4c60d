"""Counts and lists of names as a person reads them."""

from __future__ import annotations

from collections.abc import Sequence

_NUM_SHOWN = 3


def describe_count(number: int, noun: str) -> str:
    """`1 picture`, `2 pictures`, `0 pictures`."""
    return f"{number} {noun if number == 1 else f'{noun}s'}"


def describe_some(names: Sequence[str], *, most: int = _NUM_SHOWN) -> str:
    """The first of the names, with ? for what is not Unicode, and that there are more."""
    return ", ".join(name.encode(errors="replace").decode() for name in names[:most]) + (", ..." if len(names) > most else "")
