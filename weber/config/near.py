"""The nearest of some names: how a misspelled one is told from another thing."""

from __future__ import annotations

import difflib
import re
from collections.abc import Iterable

_NEAR = 0.75
"""How much of two words must be equal for one to be taken for the other misspelled."""


def find_near(name: str, names: Iterable[str]) -> str | None:
    """The name that may have been misspelled. One with another number in it is another thing."""
    near = difflib.get_close_matches(name, list(names), n=4, cutoff=_NEAR)
    numbers = _list_numbers(name)
    return next((one for one in near if not numbers or _list_numbers(one) in ([], numbers)), None)


def _list_numbers(word: str) -> list[str]:
    return re.findall(r"\d+", word)
