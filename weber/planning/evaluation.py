"""Which pictures are measured at each evaluation, and what that costs, in words."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass

import numpy as np

from weber.config.evaluation import EvaluationConfig
from weber.config.run import RunConfig
from weber.data.dataset import Dataset
from weber.data.examples import Example
from weber.data.pictures import Part
from weber.data.words import describe_count


@dataclass(frozen=True)
class Measured:
    """Pictures that are measured: some that are held out, and as many that are learned, or all."""

    held_out: tuple[Example, ...] = ()
    learned: tuple[Example, ...] = ()

    @property
    def has_captions(self) -> bool:
        """Whether any picture that is held out has a caption, so that there is something to be compared with the empty one."""
        return any(example.caption(choose_caption(example)) for example in self.held_out)

    def count_passes(self, config: EvaluationConfig) -> int:
        """Forward passes of an evaluation: with the empty caption those that are held out are measured once more."""
        times = 2 if self.has_captions else 1
        return len(config.levels) * (times * len(self.held_out) + len(self.learned))


def choose_measured(config: RunConfig, dataset: Dataset) -> Measured:
    """The same pictures in every run: by what they hold alone. Those that are learned are of the sets that some are held out of, if any
    is."""
    number = config.evaluation.pictures
    held = _choose(dataset.held_out.parts, number)
    learned = [part for part in dataset.examples.parts if not part.shared.is_regularization]
    same = [part for part in learned if part.shared.set_name in {one.shared.set_name for one in dataset.held_out.parts}]
    return Measured(held, _choose(same or learned, len(held)))


def choose_caption(example: Example) -> int | None:
    """The caption that a picture is always measured with."""
    return example.list_caption_numbers()[0]


def describe_evaluation(config: RunConfig, dataset: Dataset, *, measured: Measured) -> list[str]:
    """A line for each set that some pictures are held out of, and how many are measured."""
    if not measured.held_out:
        return []
    held = {part.shared.set_name: len(part) for part in dataset.held_out.parts}
    learned = {part.shared.set_name: len(part) for part in dataset.examples.parts}
    lines = [f"{name}: {describe_count(number, 'picture')} held out, {learned.get(name, 0)} learned" for name, number in held.items()]
    evaluation = config.evaluation
    every = f"{evaluation.every} steps" if isinstance(evaluation.every, int) else evaluation.every
    shown = f"{len(measured.held_out)} that are held out and {len(measured.learned)} that are learned"
    levels, passes = describe_count(len(evaluation.levels), "noise level"), measured.count_passes(evaluation)
    return [*lines, f"measured every {every}: {shown}, at {levels}; {passes} forward passes"]


def _choose(parts: Iterable[Part], number: int) -> tuple[Example, ...]:
    """So many, in the order of the names of their bytes, which is one of chance."""
    listed: Sequence[Part] = list(parts)
    if not listed or not number:
        return ()
    order = np.argsort(np.concatenate([part.contents for part in listed]), kind="stable")[:number].tolist()
    starts = np.cumsum([0, *map(len, listed)]).tolist()
    found = []
    for place in order:
        part = int(np.searchsorted(starts, place, side="right")) - 1
        found.append(listed[part].build(place - starts[part]))
    return tuple(found)
