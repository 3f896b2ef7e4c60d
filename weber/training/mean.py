"""The running mean in the place of the trained weights, for as long as it is looked at."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager

from weber.memory.swap import BlockSwap
from weber.optim.ema import Ema


@contextmanager
def averaged(ema: Ema | None, swap: BlockSwap | None) -> Iterator[None]:
    """Inside, the mean is in the place of the trained weights; without one nothing is changed."""
    if ema is None:
        yield
        return
    with ema.swapped():
        try:
            yield
        finally:
            if swap is not None and swap.is_trained:
                swap.settle()  # else the trained weights would be written to where blocks are only while they run
