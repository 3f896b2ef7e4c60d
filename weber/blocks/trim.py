"""Recorded calls without those whose result is there already, because an earlier call has made it of the same tensors.

So a backward pass takes from the forward pass what a block computes again to keep less: where calls are recorded, networks are small.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Iterable, Sequence
from typing import Any

from torch import Tensor

from weber.blocks.record import Call, find_memory

Find = Callable[[Tensor], int]


def trim(calls: Sequence[Call], *, fixed: Iterable[int], most_bytes: int) -> tuple[list[Call], dict[int, int]]:
    """The calls that are left, and memory that stands for other memory.

    `fixed`: memory that is read by others. `most_bytes`: what is larger, as unpacked weights are, is made again.
    """
    same = dict[int, int]()
    untouchable = set(fixed).union(*(map(find_memory, call.written) for call in calls))
    writes, known, left = Counter[int](), dict[object, list[int]](), list[Call]()
    for call in calls:
        writes.update(same.get(memory, memory) for memory in map(find_memory, call.written))
        made = [find_memory(one) for one in call.made]
        is_large = sum(one.untyped_storage().nbytes() for one in call.made) > most_bytes
        if is_large or not call.is_pure or not untouchable.isdisjoint(made):
            left.append(call)
            continue
        key = _describe(call, writes=writes, same=same)
        if key in known:
            same.update(zip(made, known[key], strict=True))
            continue
        known[key] = made
        left.append(call)
    return left, same


def _describe(call: Call, *, writes: Counter[int], same: dict[int, int]) -> object:
    """The same for calls that make the same."""
    return call.operation, _describe_value((call.args, sorted(call.kwargs.items())), writes, same)


def _describe_value(value: Any, writes: Counter[int], same: dict[int, int]) -> object:
    if isinstance(value, tuple | list):
        return type(value), *(_describe_value(one, writes, same) for one in value)
    if not isinstance(value, Tensor):
        return type(value), value
    memory = same.get(find_memory(value), find_memory(value))
    return memory, writes[memory], value.storage_offset(), value.shape, value.stride(), value.dtype, value.is_conj()
