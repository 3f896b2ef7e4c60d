"""Lengths of time in steps or epochs."""

from __future__ import annotations

import re
from typing import Annotated

from pydantic import Field

from weber.config.section import Words

_EPOCHS = re.compile(r"([1-9]\d*) epochs?")

Every = Annotated[int, Field(ge=1)] | Annotated[str, Field(pattern=f"^{_EPOCHS.pattern}$"), Words('epochs, such as "2 epochs"')]
"""A number of steps, or of passes over the data: `250`, `"2 epochs"`."""


def count_steps(every: int | str, *, steps_per_epoch: int) -> int:
    """Steps of an `Every`."""
    if isinstance(every, int):
        return every
    match = _EPOCHS.fullmatch(every)
    assert match is not None
    return int(match[1]) * steps_per_epoch
