"""The processes of a run, as a step sees them."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field

import torch
from torch import Tensor, nn

from weber.optim.states import Named
from weber.parallel.shards import ShardedSums, ShardMover
from weber.parallel.sums import Sums
from weber.parallel.world import World
from weber.training.network import Network, list_sharded


@dataclass(frozen=True)
class Crew:
    """All processes, and what adds their gradients up.

    `sums`: of what each process moves itself. With `mover` each holds a part of every block, and with `sharded` it moves a part of what is
    trained in them. `parameters` is all that is trained, and `owners` says by their names which process of a group moves those that one
    does; `rank` is the place of this one there. `watching` is called once, when all gradients of a step are complete.
    """

    world: World
    parameters: Named
    sums: Sums
    mover: ShardMover | None = None
    sharded: ShardedSums | None = None
    owners: dict[str, int] = field(default_factory=dict)
    rank: int = 0
    watching: list[Callable[[], None]] = field(default_factory=list)

    @property
    def own(self) -> Named:
        """What this process moves."""
        return [(name, one) for name, one in self.parameters if self.owners.get(name, self.rank) == self.rank]

    def begin(self, ranks: Sequence[int], *, turn: int, is_last: bool) -> None:
        """A micro-batch begins in those processes that have one in this turn of a round."""
        if self.sharded is not None:
            self.sharded.begin(ranks, turn=turn, is_last=is_last)

    def take(self, ranks: Sequence[int], *, turn: int, is_last: bool) -> None:
        """Its gradients are complete."""
        self.sums.take(ranks, turn=turn, is_last=is_last)

    def finish(self) -> None:
        """No micro-batch of the step is left: let the parameters have their gradients."""
        self.sums.finish()
        if self.sharded is not None:
            self.sharded.finish()
        while self.watching:
            self.watching.pop()()

    def measure_gradient(self) -> Tensor:
        """The norm of all gradients together, of which each process has some."""
        device, found = self.world.device, [parameter.grad for _, parameter in self.parameters]
        mine = torch.full((len(found),), -1.0, dtype=torch.float32, device=device)
        there = [number for number, gradient in enumerate(found) if gradient is not None]
        norms = torch._foreach_norm([gradient for gradient in found if gradient is not None]) if there else []
        for number, one in zip(there, norms, strict=True):
            mine[number] = one
        rows = self.world.gather(mine).view(self.world.size, -1)
        owners = torch.tensor([self.owners.get(name, self.world.rank) for name, _ in self.parameters], device=device)
        all_norms = rows.gather(0, owners.unsqueeze(0)).squeeze(0)
        kinds = [one.dtype for _, one in self.parameters]
        numbers = [number for kind in dict.fromkeys(kinds) for number, one in enumerate(kinds) if one == kind]
        ordered = all_norms[torch.tensor(numbers, device=device)]
        ordered = ordered[~(ordered < 0)]  # what is not a number stays
        norm: Tensor = torch.linalg.vector_norm(ordered.to(kinds[0]) if len(set(kinds)) == 1 else ordered)
        return norm


def build_crew(world: World, parameters: Named, *, network: Network) -> Crew:
    """Of a network that was read by all of them: what is trained in blocks of which each holds a part is moved by one process each."""
    sharded = {place: found for place, found in list_sharded(network).items() if found}
    owner_of = {id(parameter): rank for found in sharded.values() for parameter, rank in found}
    owners = {name: owner_of[id(parameter)] for name, parameter in parameters if id(parameter) in owner_of}
    whole: list[nn.Parameter] = [parameter for name, parameter in parameters if name not in owners]
    sums, mover = Sums(whole, world), network.mover
    if mover is None:
        return Crew(world, parameters, sums)
    mover.sums = ShardedSums(world, mover.groups, parameters=sharded) if sharded else None
    return Crew(world, parameters, sums, mover, mover.sums, owners, mover.groups.near.rank)
