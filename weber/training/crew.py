"""The processes of a run, as a step sees them."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from weber.parallel.sums import Sums
from weber.parallel.world import World


@dataclass(frozen=True)
class Crew:
    """All processes, and what adds their gradients up."""

    world: World
    sums: Sums

    def take(self, ranks: Sequence[int], *, turn: int, is_last: bool) -> None:
        """The gradients of a micro-batch are complete, in those processes that have one in this turn of a round."""
        self.sums.take(ranks, turn=turn, is_last=is_last)

    def finish(self) -> None:
        """No micro-batch of the step is left: let the parameters have their gradients."""
        self.sums.finish()
