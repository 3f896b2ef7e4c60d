"""When and how often the pictures of each set have their turn: from which step to which, and at what share."""

from __future__ import annotations

from bisect import bisect_right
from collections.abc import Mapping
from dataclasses import dataclass
from types import MappingProxyType

import numpy as np

from weber.data.buckets import Bucket
from weber.data.epochs import Epochs, Indices
from weber.data.pictures import Pictures
from weber.data.rounds import Cell, Rounds
from weber.data.seeds import build_seed


@dataclass(frozen=True, slots=True)
class Use:
    """Of one set: `share` 0.5 is half of its pictures in an epoch, with repeats; it takes part from `start_step` to before `stop_step`."""

    share: float = 1.0
    start_step: int = 0
    stop_step: int | None = None

    def is_on(self, step: int) -> bool:
        """Does it take part in that step?"""
        return self.start_step <= step and (self.stop_step is None or step < self.stop_step)


ALWAYS = Use()
Uses = Mapping[str, Use]
NO_USES: Uses = MappingProxyType({})
"""By the names of sets; each that is not there always takes part as it is."""


class Course:
    """Phases from one step to the next in which the same sets take part, each with epochs of its own."""

    def __init__(self, pictures: Pictures, uses: Uses, *, group_size: int, seed: int) -> None:
        self._pictures, self._uses, self._group_size = pictures, uses, group_size
        self.starts = list_starts(uses)
        whole = self._build(None, seed)
        assert whole is not None
        self.steps_per_epoch = whole.steps_per_epoch
        is_one = len(self.starts) == 1
        self._phases = [whole] if is_one else [
            self._build(start, build_seed(seed, "phase", start) if start else seed) for start in self.starts
        ]

    @property
    def group_sizes(self) -> list[int]:
        """How many samples each step of one epoch of each phase has."""
        return [size for phase in self._phases if phase is not None for size in phase.group_sizes]

    def list_group(self, step: int) -> list[int]:
        """The pictures of a step, of which there has to be one."""
        number = bisect_right(self.starts, step) - 1
        phase = self._phases[number]
        assert phase is not None, "a step without a set is refused before a run"
        return phase.list_group(step - self.starts[number])

    def _build(self, start: int | None, seed: int) -> Epochs | Rounds | None:
        """Of the sets that take part in that step, None: of all; None where there is none."""
        parts = self._pictures.list_cells()
        on = [(name, repeats, cells) for name, repeats, cells in parts if start is None or self._uses.get(name, ALWAYS).is_on(start)]
        if not on:
            return None
        if all(self._uses.get(name, ALWAYS).share == 1 for name, _, _ in on):
            found: dict[Bucket, list[Indices]] = {}
            for _, repeats, cells in on:
                for bucket, places in cells.items():
                    found.setdefault(bucket, []).append(np.repeat(places, repeats) if repeats > 1 else places)
            members = {bucket: np.concatenate(places) for bucket, places in sorted(found.items())}
            return Epochs(members, group_size=self._group_size, seed=seed)
        listed = [
            Cell(name, bucket, places, len(places) * repeats * self._uses.get(name, ALWAYS).share)
            for name, repeats, cells in on
            for bucket, places in cells.items()
        ]
        return Rounds(listed, group_size=self._group_size, seed=seed)


def list_starts(uses: Uses) -> list[int]:
    """The steps with which a phase begins, the first included."""
    return sorted({0, *(use.start_step for use in uses.values()), *(use.stop_step for use in uses.values() if use.stop_step is not None)})
