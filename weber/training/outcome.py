"""What came of a step: numbers on the device, and whether they are finite.

The host need not wait for them. Then the device itself leaves out the step whose numbers are not finite, and all that follow, and the
host finds out when it reads them, a step later.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor

from weber.errors import TrainingError
from weber.memory.beside import Fetched
from weber.optim.stepper import Stepper
from weber.track.signals import Use


class Health:
    """Whether every number until now was finite: a flag on the device."""

    def __init__(self, device: torch.device) -> None:
        self.is_finite = torch.ones((), dtype=torch.bool, device=device)

    def note(self, number: Tensor) -> None:
        """One more number, or several; for good."""
        self.is_finite = self.is_finite & number.isfinite().all()


@dataclass(frozen=True)
class Outcome:
    """Losses and gradient norm of a step, counted from 0, with the names of its samples, and which of them are learned and not for
    regularization. `fetched` has the numbers of `keys`, then the loss of each sample, then their noise levels. `is_fused`: weights have
    moved one by one."""

    step: int
    names: Sequence[str]
    is_learned: Sequence[bool]
    keys: Sequence[str]
    fetched: Fetched
    optimizer: torch.optim.Optimizer
    is_fused: bool
    is_fp32: bool

    def read(self) -> dict[str, float]:
        """The numbers by name; waits for the device. Raises TrainingError where one is not finite, and then no such step is counted."""
        numbers = dict(zip(self.keys, self.fetched.read(), strict=False))
        for key, number in numbers.items():
            if not math.isfinite(number):
                self._fail(key, number)
        return numbers

    def list_uses(self) -> list[Use]:
        """The samples, with their noise levels and losses; waits for the device."""
        losses, levels = np.array(self.fetched.read()[len(self.keys) :]).reshape(2, -1).tolist()
        return [Use(name, level, loss) for name, level, loss in zip(self.names, levels, losses, strict=True)]

    def _fail(self, key: str, number: float) -> None:
        if isinstance(self.optimizer, Stepper):
            self.optimizer.take_back()
        self.optimizer.zero_grad()
        what = "gradient norm" if key == "grad_norm" else "loss"
        is_late = self.is_fused and key == "grad_norm"
        raise TrainingError(
            f"The {what} of step {self.step + 1} is not finite; training stopped "
            + ("with those weights unmoved whose gradient was not; others moved." if is_late else "before anything was changed."),
            got=f"{what} = {number} for {', '.join(self.names)}",
            expected="a finite number",
            fix="look at these pictures and captions" + ("" if self.is_fp32 else '; or set memory.dtype = "fp32"'),
        )
