"""Blocks of which each process holds a part: whole ones are put together in a slot before they run.

Frozen bytes are cut into equal parts, whatever they mean, so that packed weights are sharded as any others and nothing is ever cast.
What is trained is dealt out tensor by tensor: each is moved by one process alone, whole, with the bits of a run in one process; with
several groups, of which each holds all, by one process of each.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field
from typing import Protocol

import torch
from torch import Tensor, nn

from weber.parallel.groups import Groups, build_groups
from weber.parallel.sums import Total, flatten_gradients
from weber.parallel.world import World

ALIGNMENT_BYTES = 256


@dataclass(frozen=True)
class Sharding:
    """How blocks are shared out: among how many processes (`group`). `keeps`: a whole block stays in a slot of its own until what is
    trained has moved, instead of making room for another one. `offloads`: a process's parts of what is frozen lie in the memory of
    the host.
    """

    world: World
    group: int
    keeps: bool = False
    offloads: bool = False


Pieces = Iterable[tuple[int, Tensor]]
"""See `memory/movers.py`."""


class Host(Protocol):
    """What keeps parts in the memory of the host."""

    def keep(self, block: int, pieces: Pieces, *, num_bytes: int) -> Tensor:
        """See `Mover.keep`."""
        ...

    def close(self) -> None:
        """See `Mover.close`."""
        ...


@dataclass
class _Block:
    """Where a block's bytes are. `owned`: (offset, bytes, process of the group) of each trained tensor; `part`: this process's part of the
    rest, which begins at `start`."""

    start: int
    part: Tensor
    owned: list[tuple[int, int, int]] = field(default_factory=list)
    own: dict[int, Tensor] = field(default_factory=dict)


class ShardMover:
    """A mover of `BlockSwap` whose bytes come from all processes of a group.

    All of them ask for the same blocks in the same order. When process 0 runs the network alone, it says so to the others for each block
    (`answer`); what they had in their slots is forgotten then.
    """

    def __init__(self, sharding: Sharding, *, device: torch.device, num_trained: Sequence[int], host: Host | None = None) -> None:
        """`num_trained`: of each block, how many tensors are trained; they come first. `host`: what keeps parts that are offloaded. All
        processes call it at once."""
        self.world, self.groups = sharding.world, build_groups(sharding.world, sharding.group)
        self.was_alone = False
        self._device, self._num_trained = device, num_trained
        self._blocks: dict[int, _Block] = {}
        self._host = host
        self._loads = [0] * self.groups.near.size
        self._num_bytes: dict[int, int] = {}
        self._have_own = False
        self._slots: list[Tensor] = []
        self._stream = torch.cuda.Stream(device) if device.type == "cuda" else None  # type: ignore[no-untyped-call]
        self._freed: list[torch.cuda.Event] = []
        self._ready: list[torch.cuda.Event] = []
        self.sums: ShardedSums | None = None
        """Told when the gradients of a block are complete."""

    def keep(self, block: int, pieces: Pieces, *, num_bytes: int) -> None:
        """See `Mover.keep`: all bytes pass by, and those of this process stay."""
        all_pieces, num_trained = list(pieces), self._num_trained[block]
        rest = all_pieces[num_trained:]
        start = min((offset for offset, _ in rest), default=num_bytes)
        size = self.count_part_bytes(num_bytes - start)
        mine = _cut(rest, first=start + self.groups.near.rank * size, size=size)
        if self._host is None or size == 0:
            part = _join(mine, torch.zeros(size, dtype=torch.uint8, device=self._device))
        else:
            part = self._host.keep(block, mine, num_bytes=size)
        kept = _Block(start, part)
        for offset, data in all_pieces[:num_trained]:
            owner = self._loads.index(min(self._loads))
            self._loads[owner] += len(data)
            kept.owned.append((offset, len(data), owner))
            if owner == self.groups.near.rank:
                kept.own[offset] = data.to(self._device, copy=True)
        self._blocks[block] = kept
        self._num_bytes[block] = num_bytes

    def list_own(self, block: int) -> dict[int, Tensor]:
        """See `Mover.list_own`."""
        return self._blocks[block].own

    def list_owners(self, block: int) -> list[int]:
        """Which process of a group moves each of the block's trained tensors."""
        return [owner for _, _, owner in self._blocks[block].owned]

    def count_part_bytes(self, num_bytes: int) -> int:
        """Of frozen bytes, what each process holds."""
        return -(-num_bytes // (self.groups.near.size * ALIGNMENT_BYTES)) * ALIGNMENT_BYTES

    def allocate(self, num_slots: int, num_bytes: int) -> list[Tensor]:
        """See `Mover.allocate`; where each block has a slot, it is as large as that."""
        self._have_own = num_slots == len(self._num_bytes)  # each block a slot, which has its number
        sizes = [self._num_bytes[block] for block in sorted(self._num_bytes)] if self._have_own else [num_bytes] * num_slots
        more = self.groups.near.size * ALIGNMENT_BYTES
        self._slots = [torch.empty(size + more, dtype=torch.uint8, device=self._device) for size in sizes]
        if self._stream is not None:
            self._freed, self._ready = ([torch.cuda.Event() for _ in self._slots] for _ in range(2))  # type: ignore[no-untyped-call]
            for slot in range(num_slots):
                self.free(slot)
        return self._slots

    def start(self, block: int, slot: int) -> None:
        """See `Mover.start`."""
        if self.world.is_together:
            self._put_together(block, slot)
            return
        self.was_alone = True
        with self.world.leading("gather", block=block):
            self._put_together(block, slot)

    def answer(self, block: int) -> None:
        """Process 0 needs a block, which those of its group have between them."""
        self.was_alone = True
        if self.groups.near.has_leader:
            self._put_together(block, block if self._have_own else 0)

    def wait(self, slot: int, *, is_written: bool = False) -> None:
        """See `Mover.wait`."""
        if self._stream is not None:
            torch.cuda.current_stream(self._device).wait_event(self._ready[slot])

    def free(self, slot: int) -> None:
        """See `Mover.free`."""
        if self._stream is not None:
            self._freed[slot].record(torch.cuda.current_stream(self._device))

    def bring_back(self, block: int, slot: int, *, num_bytes: int) -> None:
        """See `Mover.bring_back`: the weights are as they were, and their gradients are complete."""
        self.free(slot)
        assert self.sums is not None
        self.sums.take(block)

    def settle(self) -> None:
        """See `Mover.settle`."""
        if self._stream is not None:
            self._stream.synchronize()

    def close(self) -> None:
        """See `Mover.close`."""
        self.settle()
        if self._host is not None:
            self._host.close()

    def _put_together(self, block: int, slot: int) -> None:
        if self._stream is None:
            self._gather(self._blocks[block], self._slots[slot])
            return
        with torch.cuda.stream(self._stream):
            self._stream.wait_event(self._freed[slot])
            self._gather(self._blocks[block], self._slots[slot])
            self._ready[slot].record(self._stream)

    def _gather(self, block: _Block, slot: Tensor) -> None:
        near = self.groups.near
        for offset, num_bytes, owner in block.owned:
            target = slot[offset : offset + num_bytes]
            if owner == near.rank:
                target.copy_(block.own[offset])
            near.send_from(target, rank=owner)
        if len(block.part):
            whole = slot[block.start : block.start + near.size * len(block.part)]
            mine = block.part if self._host is None else whole.view(near.size, -1)[near.rank]
            if self._host is not None:
                mine.copy_(block.part, non_blocking=True)  # in its place, where no other memory is needed
            near.gather(mine, whole)


def _cut(pieces: Pieces, *, first: int, size: int) -> list[tuple[int, Tensor]]:
    """Of the bytes of a block so many from `first` on, with their places among these."""
    found = []
    for offset, data in pieces:
        begin, end = max(offset, first), min(offset + len(data), first + size)
        if begin < end:
            found.append((begin - first, data[begin - offset : end - offset]))
    return found


def _join(pieces: Pieces, memory: Tensor) -> Tensor:
    for offset, data in pieces:
        memory[offset : offset + len(data)].copy_(data)
    return memory


class ShardedSums:
    """The gradients of trained tensors in blocks, each added up by the process that moves it. `parameters` of each block, with their
    processes of a group.

    With several groups each of the processes that move the same tensors adds up a part of them, and in the end they have all of it.
    """

    def __init__(self, world: World, groups: Groups, *, parameters: dict[int, list[tuple[nn.Parameter, int]]]) -> None:
        self._world, self._groups, self._parameters = world, groups, parameters
        self._totals: dict[tuple[int, torch.dtype], Total] = {}
        self._found: set[tuple[int, int]] = set()
        self._turn: tuple[list[int], int, bool] = [], 0, True

    def begin(self, ranks: Sequence[int], *, turn: int, is_last: bool) -> None:
        """A micro-batch begins in these processes; others run the same blocks, and what comes of it is nothing."""
        self._turn = list(ranks), turn, is_last

    def take(self, block: int) -> None:
        """The gradients of a block are complete: take them off the parameters, and send each to whoever moves it."""
        ranks, turn, is_last = self._turn
        world, mine = self._world, self._world.rank in self._turn[0]
        if mine:
            owned = enumerate(self._parameters[block])
            self._found |= {(block, number) for number, (parameter, _) in owned if parameter.grad is not None}
        for dtype in dict.fromkeys(parameter.dtype for parameter, _ in self._parameters[block]):
            of_owner = [self._list(block, dtype, owner) for owner in range(self._groups.near.size)]
            parts = [-(-sum(parameter.numel() for parameter in own) // self._groups.across.size) for own in of_owner]
            sizes = parts * self._groups.across.size  # of each process of the world
            flat = self._flatten(of_owner, parts) if mine else torch.empty(0, dtype=dtype)
            received = [sizes[world.rank] if rank in ranks else 0 for rank in range(world.size)]
            sent = sizes if mine else [0] * world.size
            pieces = world.exchange(flat.to(world.device), sent=sent, received=received).view(len(ranks), -1)
            if sizes[world.rank]:
                total = self._totals.setdefault((block, dtype), Total())
                total.take(list(zip(ranks, pieces, strict=True)), turn=turn, is_last=is_last)
        for parameter, _ in self._parameters[block]:
            parameter.grad = None

    def finish(self) -> None:
        """Give each parameter of this process the sum of its gradients; none to those that nobody had one for."""
        told = self._world.tell_all({"found": sorted(self._found)})
        found = {(block, number) for one in told for block, number in one["found"]}
        for block, parameters in self._parameters.items():
            numbers = {id(parameter): number for number, (parameter, _) in enumerate(parameters)}
            for dtype in dict.fromkeys(parameter.dtype for parameter, _ in parameters):
                own = self._list(block, dtype, self._groups.near.rank)
                total = self._totals.pop((block, dtype), None)
                if not own or total is None or total.tensor is None:
                    continue
                whole = self._put_together(total.tensor)[: sum(one.numel() for one in own)]
                for parameter, part in zip(own, torch.split(whole, [one.numel() for one in own]), strict=True):
                    parameter.grad = part.view(parameter.shape) if (block, numbers[id(parameter)]) in found else None
        self._totals, self._found = {}, set()

    def _flatten(self, of_owner: Sequence[Sequence[nn.Parameter]], parts: Sequence[int]) -> Tensor:
        """Of a block what each process of the world is sent, one behind the other. `parts`: numbers for each of a group."""
        times = self._groups.across.size
        if times == 1:
            return flatten_gradients([one for own in of_owner for one in own], sum(parts))
        rows = [flatten_gradients(own, part * times).view(times, part) for own, part in zip(of_owner, parts, strict=True) if own]
        return torch.cat(rows, dim=1).view(-1)

    def _put_together(self, part: Tensor) -> Tensor:
        across = self._groups.across
        return part if across.size == 1 else across.gather(part, part.new_empty(across.size * len(part)))

    def _list(self, block: int, dtype: torch.dtype, owner: int) -> list[nn.Parameter]:
        return [parameter for parameter, rank in self._parameters[block] if rank == owner and parameter.dtype == dtype]
