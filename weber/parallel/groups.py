"""Some of the processes of a run among themselves: those that hold all blocks together, and those that hold the same parts of them."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import torch.distributed as dist
from torch import Tensor

from weber.parallel.connections import list_sockets, watch_connections
from weber.parallel.world import PATIENCE, World, watched


class Group:
    """Processes that exchange tensors with each other alone. `rank`, `size`: which of them this one is, and of how many."""

    def __init__(self, ranks: Sequence[int], rank: int, *, handle: Any) -> None:
        """`ranks`: their numbers in the world; `handle`: PyTorch's group of them, None: all processes."""
        self.rank, self.size = ranks.index(rank), len(ranks)
        self._ranks, self._handle = list(ranks), handle

    @property
    def has_leader(self) -> bool:
        """Whether process 0 is one of them."""
        return 0 in self._ranks

    def gather(self, mine: Tensor, found: Tensor) -> Tensor:
        """The tensors of all of them, of equal shapes, behind each other in `found`, of which `mine` may be the part of this process."""
        with watched("exchanging numbers"):
            dist.all_gather_single(found, mine.contiguous(), group=self._handle)
        return found

    def send_from(self, tensor: Tensor, *, rank: int) -> None:
        """What one of them has in a tensor, into that of all others, in place."""
        with watched("exchanging weights"):
            dist.broadcast(tensor, src=self._ranks[rank], group=self._handle)


@dataclass(frozen=True)
class Groups:
    """`near`: the processes that hold all blocks together; `across`: one of each of those groups, which hold the same parts."""

    near: Group
    across: Group


def build_groups(world: World, size: int) -> Groups:
    """Groups of `size` processes with neighboring numbers; all processes call it at once. `size` divides their number."""
    assert world.size % size == 0
    near = [list(range(start, start + size)) for start in range(0, world.size, size)]
    across = [list(range(place, world.size, size)) for place in range(size)]
    if size == world.size:
        return Groups(Group(near[0], world.rank, handle=world.group), Group([world.rank], world.rank, handle=None))
    backend = "nccl" if world.device.type == "cuda" else "gloo"
    known, found = list_sockets(), list[Group]()
    with watched("meeting"):
        for several in (near, across):
            handles = [dist.new_group(ranks, backend=backend, timeout=PATIENCE) for ranks in several]
            found += [
                Group(ranks, world.rank, handle=handle) for ranks, handle in zip(several, handles, strict=True) if world.rank in ranks
            ]
    watch_connections(known)
    return Groups(*found)
