"""What is recorded of a run as it goes, for a reading of what goes wrong: numbers that the steps have anyway, and a few that are measured
now and then. After a run has gone on, uses of pictures are those since then; all else is in its files."""

from __future__ import annotations

from collections import deque
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import NamedTuple

UPDATE, GRADIENT, LOSS_AT = "update/", "gradient/", "loss_at/"
"""What names of numbers begin with: how far the weights of a group of blocks moved in a step, as a share of their size; the norm of their
gradients; the mean loss at noise levels up to that one, since the last reading."""

NOISE, LIKENESS = "pictures/noise", "pictures/likeness"
"""Of painted pictures: how much of them is noise, 0 to 1, and how alike those of different prompts are, 1: equal."""

_QUARTERS = (0.25, 0.5, 0.75, 1.0)
_NUM_KEPT, _NUM_USES, _NUM_PICTURES = 2000, 12, 5000
"""Of steps and uses at the start and at the end of a run, of each picture, and of pictures: all are not more than a few MiB."""


class Use(NamedTuple):
    """A picture in a step: its noise level, 0 to 1, and its loss."""

    name: str
    level: float
    loss: float


@dataclass
class Signals:
    """See above. `first` and `last` are uses of pictures, `uses` the last ones of each picture; `scores`, `probes` and `looks` are
    evaluations, readings of weights and gradients, and of painted pictures, in order. `lr_share`: what the schedule leaves of the rate."""

    norms: list[float] = field(default_factory=list)
    first: list[Use] = field(default_factory=list)
    last: deque[Use] = field(default_factory=lambda: deque(maxlen=_NUM_KEPT))
    uses: dict[str, deque[Use]] = field(default_factory=dict)
    scores: list[Mapping[str, float]] = field(default_factory=list)
    probes: list[Mapping[str, float]] = field(default_factory=list)
    looks: list[Mapping[str, float]] = field(default_factory=list)
    lr_share: float = 1.0
    _sums: dict[float, tuple[float, int]] = field(default_factory=dict)

    def load(
        self, steps: Iterable[Mapping[str, float]], readings: Iterable[Mapping[str, float]], *, scores: Sequence[Mapping[str, float]]
    ) -> None:
        """What a run has recorded until now."""
        self.norms += [line["grad_norm"] for line in steps if "grad_norm" in line]
        for line in readings:
            for kind, found in ((UPDATE, self.probes), (NOISE, self.looks)):
                found += [line] if any(name.startswith(kind) for name in line) else []
        self.scores += scores

    def note(self, numbers: Mapping[str, float], uses: Iterable[Use]) -> None:
        """One more step."""
        self.norms.append(numbers["grad_norm"])
        if len(self.norms) > _NUM_KEPT:
            del self.norms[_NUM_KEPT // 2]
        for use in uses:
            if len(self.first) < _NUM_KEPT:
                self.first.append(use)
            self.last.append(use)
            if use.name in self.uses or len(self.uses) < _NUM_PICTURES:
                self.uses.setdefault(use.name, deque(maxlen=_NUM_USES)).append(use)
            quarter = next((one for one in _QUARTERS if use.level <= one), _QUARTERS[-1])
            total, number = self._sums.get(quarter, (0.0, 0))
            self._sums[quarter] = total + use.loss, number + 1

    def take_losses(self) -> dict[str, float]:
        """The mean loss at each quarter of the noise levels since this was asked last."""
        found = {f"{LOSS_AT}{quarter:g}": total / number for quarter, (total, number) in sorted(self._sums.items())}
        self._sums.clear()
        return found
