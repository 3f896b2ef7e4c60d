"""Gradients of several processes, added up in the order in which one process would have added them.

One process adds the gradients of its micro-batches one after the other. So do several: micro-batch m is that of process m modulo their
number, and whoever owns a part of the gradients adds what comes from process 0, then from process 1, and so on, round after round. The
order of additions is all that rounding depends on, so the sums are equal bit for bit, on any number of processes; a ring that adds as it
passes on would not give that.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from itertools import accumulate

import torch
from torch import Tensor, nn

from weber.parallel.world import World


class Total:
    """A part of the gradients, added up. `counts`: how many micro-batches each process has in this round."""

    def __init__(self) -> None:
        self.tensor: Tensor | None = None
        self._held: dict[tuple[int, int], Tensor] = {}

    def take(self, pieces: Sequence[tuple[int, Tensor]], *, turn: int, is_last: bool) -> None:
        """What comes from some processes in a turn of a round. Where a process has several micro-batches in a round, nothing is added
        before the last of them, since those of one process come before those of the next."""
        self._held.update({(rank, turn): piece for rank, piece in pieces})
        if not is_last:
            return
        for key in sorted(self._held):
            if self.tensor is None:
                self.tensor = self._held[key].clone()
            else:
                self.tensor += self._held[key]
        self._held.clear()


@dataclass
class _Bucket:
    """Parameters of one precision, of which each process owns a part of equal size."""

    parameters: list[nn.Parameter]
    part: int
    total: Total = field(default_factory=Total)


class Sums:
    """The gradients of parameters that each process has whole, as flat runs of numbers."""

    def __init__(self, parameters: Sequence[nn.Parameter], world: World) -> None:
        self._parameters, self._world = list(parameters), world
        self._found = [False] * len(parameters)
        self._buckets: list[_Bucket] = []
        for dtype in dict.fromkeys(parameter.dtype for parameter in parameters):
            own = [parameter for parameter in parameters if parameter.dtype == dtype]
            self._buckets.append(_Bucket(own, -(-sum(parameter.numel() for parameter in own) // world.size)))

    def take(self, ranks: Sequence[int], *, turn: int, is_last: bool) -> None:
        """Take the gradients of a micro-batch off the parameters, and exchange them. `ranks`: which processes have one in this turn."""
        world = self._world
        if world.rank in ranks:
            self._found = [was or parameter.grad is not None for was, parameter in zip(self._found, self._parameters, strict=True)]
        for bucket in self._buckets:
            part, is_mine = bucket.part, world.rank in ranks
            flat = flatten_gradients(bucket.parameters, part * world.size) if is_mine else bucket.parameters[0].new_empty(0)
            received = [part if rank in ranks else 0 for rank in range(world.size)]
            pieces = world.exchange(flat, sent=[part if is_mine else 0] * world.size, received=received).view(len(ranks), part)
            bucket.total.take(list(zip(ranks, pieces, strict=True)), turn=turn, is_last=is_last)
        for parameter in self._parameters:
            parameter.grad = None

    def finish(self) -> None:
        """Give each parameter the sum of all its gradients; none to those that nobody had one for."""
        told = self._world.tell_all({"lacks": [number for number, is_there in enumerate(self._found) if not is_there]})
        lacking = set[int].intersection(*(set(one["lacks"]) for one in told))
        for bucket in self._buckets:
            assert bucket.total.tensor is not None
            flat = self._world.gather(bucket.total.tensor)
            sizes = [parameter.numel() for parameter in bucket.parameters]
            for parameter, start, size in zip(bucket.parameters, accumulate(sizes, initial=0), sizes, strict=False):
                parameter.grad = flat[start : start + size].view(parameter.shape)
            bucket.total = Total()
        for number in lacking:
            self._parameters[number].grad = None
        self._found = [False] * len(self._parameters)


@torch.no_grad()
def flatten_gradients(parameters: Sequence[nn.Parameter], size: int) -> Tensor:
    """All gradients behind each other, filled up. What is missing is -0, the one number that changes no sum."""
    flat = torch.full((size,), -0.0, dtype=parameters[0].dtype, device=parameters[0].device)
    start = 0
    for parameter in parameters:
        if parameter.grad is not None:
            flat[start : start + parameter.numel()] = parameter.grad.reshape(-1)
        start += parameter.numel()
    return flat
