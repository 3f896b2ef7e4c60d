"""What a table says of a key of another trainer: one of four answers."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from fnmatch import fnmatchcase
from functools import cache
from typing import Any

from weber.config.importers.draft import Draft, Keys
from weber.config.importers.outcome import OutcomeKind

Call = Callable[[Draft, Keys, Any], str]
"""Writes settings into a draft and says what they are. Takes the draft, all keys of that table, and the value."""


@dataclass(frozen=True)
class Answer:
    """A row of a table. `key`: the setting that the value goes to as it is, `.name` within the set of pictures that is read; `call`: what
    translates it; `why`: the reason, or what it becomes in words; `off`: values that ask for nothing, here as there."""

    kind: OutcomeKind
    key: str = ""
    why: str = ""
    call: Call | None = None
    off: tuple[Any, ...] = ()


def used(key: str, why: str = "", *, off: Sequence[Any] = ()) -> Answer:
    """It means the same here: the value goes to that setting."""
    return Answer("used", key, why, off=tuple(off))


def translated(call: Call, why: str, *, off: Sequence[Any] = ()) -> Answer:
    """It is said in other settings. `why`: how, for the page of the trainer."""
    return Answer("translated", why=why, call=call, off=tuple(off))


def stated(function: Callable[..., str], why: str, *, off: Sequence[Any] = ()) -> Answer:
    """The same, for a function that takes the value by its name: `function(draft, keys, value=value)`."""
    return translated(lambda draft, keys, value: function(draft, keys, value=value), why, off=off)


def refused(why: str, *, off: Sequence[Any] = (None, False, 0, "")) -> Answer:
    """It cannot be had: what to do instead. `off`: values with which nothing is asked for."""
    return Answer("refused", why=why, off=tuple(off))


def ignored(why: str) -> Answer:
    """It had no effect on what is learned, there or here: the fact."""
    return Answer("no effect", why=why)


Table = Mapping[str, Answer]
"""A name, several with blanks between them, or with `*` for any text -> the answer."""


def find_answer(table: Table, name: str) -> Answer | None:
    """The answer for a key: by its name, else by a pattern."""
    rows = _index_rows(tuple(table))
    if name in rows:
        return table[rows[name]]
    return next((table[row] for pattern, row in rows.items() if "*" in pattern and fnmatchcase(name, pattern)), None)


@cache
def _index_rows(rows: tuple[str, ...]) -> Mapping[str, str]:
    return {name: row for row in rows for name in row.split()}


def list_names(table: Table) -> list[str]:
    """Every name of a table."""
    return list(_index_rows(tuple(table)))
