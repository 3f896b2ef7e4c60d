"""Parts of what is to be encoded, so that several processes or machines fill one cache without doing anything twice."""

from __future__ import annotations

import re
from collections.abc import Callable
from typing import NamedTuple

from weber.errors import ConfigError

_SPELLED = re.compile(r"([1-9]\d{0,5})/([1-9]\d{0,5})")
_DIGITS = 8


class Share(NamedTuple):
    """Part `number` (from 0) of `num_parts`: which samples are in it depends on their keys alone, so nobody has to be asked."""

    number: int = 0
    num_parts: int = 1

    def has(self, key: str) -> bool:
        """Whether a sample is in it."""
        return int(key[:_DIGITS], 16) % self.num_parts == self.number


WHOLE = Share()

Pace = Callable[[str, int], int]
"""A text part, and how many batches of it this process has: how often its encoder is to run. Processes that hold parts of it run it
together."""


def keep_own_pace(part: str, num_batches: int) -> int:
    """Of encoders that each process has whole."""
    return num_batches



def read_share(text: str) -> Share:
    """From `2/4`, the second of four. Raises ConfigError."""
    found = _SPELLED.fullmatch(text)
    if found is None or int(found[1]) > int(found[2]):
        raise ConfigError(
            "That is no part of what is to be encoded.",
            got=f"--part {text}",
            expected="a number and how many parts there are, from 1/4 to 4/4",
            fix="start one process with --part 1/2 and another with --part 2/2",
        )
    return Share(int(found[1]) - 1, int(found[2]))
