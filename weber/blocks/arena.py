"""Places in memory for what a list of steps makes: side by side what is alive at the same time, one after the other what is not."""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor

_ALIGNMENT = 64


@dataclass
class Life:
    """Of a tensor's memory: so many bytes, from its first step to its last one."""

    num_bytes: int
    first: int
    last: int


def place(lives: dict[int, Life]) -> tuple[dict[int, int], int]:
    """Where each begins, by its key, and how many bytes all of them take."""
    starts, end = dict[int, int](), 0
    busy: list[tuple[int, int, int]] = []  # begin and end of a place, and the last step in which it is taken
    for key, life in sorted(lives.items(), key=lambda one: one[1].first):
        busy = sorted(one for one in busy if one[2] >= life.first)
        start, size = 0, _round_up(life.num_bytes)
        for begin, stop, _ in busy:
            if begin - start >= size:
                break
            start = max(start, stop)
        starts[key] = start
        busy.append((start, start + size, life.last))
        end = max(end, start + size)
    return starts, end


def line_up(lives: dict[int, Life]) -> tuple[dict[int, int], int]:
    """The same of what is alive all the time, one behind the other."""
    starts, end = dict[int, int](), 0
    for key, life in lives.items():
        starts[key] = end
        end += _round_up(life.num_bytes)
    return starts, end


def move(tensor: Tensor, memory: Tensor, *, start: int) -> Tensor:
    """A tensor as it is, in a memory that begins at `start`; what is in it does not go with it."""
    offset = start // tensor.dtype.itemsize + tensor.storage_offset()
    moved = torch.empty(0, dtype=tensor.dtype).set_(memory.untyped_storage(), offset, tensor.shape, tensor.stride())
    return moved.conj() if tensor.is_conj() else moved


def _round_up(num_bytes: int) -> int:
    return -(-num_bytes // _ALIGNMENT) * _ALIGNMENT
