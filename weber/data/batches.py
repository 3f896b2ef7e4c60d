"""Which pictures each step sees: a pure function of the examples, the sizes, the seed and the step."""

from __future__ import annotations

from dataclasses import dataclass

from weber.data.examples import Example
from weber.data.pictures import Pictures
from weber.data.seeds import draw_choice, draw_order, draw_uniform, draw_weighted
from weber.data.uses import NO_USES, Course, Uses


@dataclass(frozen=True, slots=True)
class Draw:
    """One sample of a step: indices of the example, and of its caption (None: the empty one in its place), crop and mask, and of its
    references in the order in which they are seen (None: all, as they are).

    `place` is the index in the step's group.
    """

    example: int
    place: int
    caption: int | None
    crop: int
    mask: int = 0
    references: tuple[int, ...] | None = None


class BatchPlan:
    """Every step is a group of `batch_size * accumulation` samples of one bucket, from any sets, cut into micro-batches.

    In an epoch each example appears exactly `repeats` times, unless `uses` says otherwise of its set; the last group of a bucket may be
    smaller. Only the order of the current epoch is kept, a few numbers per sample.
    """

    def __init__(self, pictures: Pictures, *, batch_size: int, accumulation: int, seed: int, uses: Uses = NO_USES) -> None:
        assert len(pictures) and batch_size >= 1 and accumulation >= 1
        self._examples, self._batch_size, self._seed = pictures, batch_size, seed
        self.group_size = batch_size * accumulation
        self._course = Course(pictures, uses, group_size=batch_size * accumulation, seed=seed)
        self.steps_per_epoch = self._course.steps_per_epoch
        self.uses = uses

    @property
    def group_sizes(self) -> list[int]:
        """How many samples each step of an epoch has, at most `batch_size * accumulation`."""
        return self._course.group_sizes

    def draw_step(self, step: int, num_processes: int = 1) -> list[list[Draw]]:
        """The micro-batches of a step, counted from 0. They are smaller where else there would be fewer than processes."""
        draws = [self._draw(example, step, place) for place, example in enumerate(self._course.list_group(step))]
        size = min(self._batch_size, -(-self.group_size // num_processes))
        return [draws[start : start + size] for start in range(0, len(draws), size)]

    def _draw(self, example: int, step: int, place: int) -> Draw:
        chosen = self._examples[example]
        parts, weights = (self._seed, step, place, "caption"), chosen.caption_weights
        caption: int | None = draw_weighted(weights, *parts) if weights else draw_choice(len(chosen.captions), *parts)
        if draw_uniform(self._seed, step, place, "caption_dropout") < chosen.caption_dropout:
            caption = None
        crop = draw_choice(len(chosen.crops), self._seed, step, place, "crop")
        mask = draw_choice(len(chosen.masks), self._seed, step, place, "mask") if chosen.masks else 0
        return Draw(example, place, caption, crop, mask, self._draw_references(chosen, step, place))

    def _draw_references(self, chosen: Example, step: int, place: int) -> tuple[int, ...] | None:
        if not chosen.references:
            return None
        if draw_uniform(self._seed, step, place, "reference_dropout") < chosen.reference_dropout:
            return ()
        if chosen.is_order_drawn:
            return tuple(draw_order(len(chosen.references), self._seed, step, place, "reference_order").tolist())
        return None
