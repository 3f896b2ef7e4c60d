"""Which pictures of a step are whose, where several processes train."""

from __future__ import annotations

from dataclasses import dataclass

from weber.data.batches import Draw
from weber.data.examples import Example
from weber.planning.plan import Plan


@dataclass(frozen=True)
class Dealt:
    """The micro-batches of a step are dealt out one after the other: those of process `rank`."""

    plan: Plan
    rank: int = 0
    num_processes: int = 1

    @property
    def own(self) -> slice:
        """Of all micro-batches those of this process."""
        return slice(self.rank, None, self.num_processes)

    def draw_step(self, step: int) -> list[list[Draw]]:
        """The micro-batches of a step, of all processes."""
        return self.plan.batches.draw_step(step, self.num_processes)

    def list_samples(self, step: int) -> dict[int, Example]:
        """The pictures of a step by their places in it."""
        return {draw.place: self.plan.dataset.examples[draw.example] for draws in self.draw_step(step) for draw in draws}

    def list_asked(self, step: int) -> list[int]:
        """The places in a step of the samples whose noise level is drawn."""
        has_lessons = self.plan.resolved.objective.teacher_draws is not None
        return [place for place, one in self.list_samples(step).items() if not (has_lessons and one.is_regularization)]
