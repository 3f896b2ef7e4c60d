"""What a step needs."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import torch
from torch import Tensor, nn

from weber.config.run import RunConfig
from weber.families.family import Family, Predictor
from weber.kinds.text import TextLearner
from weber.memory.swap import BlockSwap
from weber.optim.ema import Ema
from weber.optim.fused import FusedBackward
from weber.optim.skip import can_skip
from weber.training.compiling import Compiling
from weber.training.crew import Crew
from weber.training.outcome import Health
from weber.training.teacher import Teacher


@dataclass(frozen=True)
class Learner:
    """What a step needs: the network, what learns in it, and how it moves: all at once, or each weight in the backward pass (`fused`).

    `text`: the text encoder, where it learns too. `health`: where there is one, the host does not wait for a step to end. `crew`: where
    several processes train.
    """

    config: RunConfig
    family: Family
    predictor: Predictor
    parameters: Sequence[tuple[str, nn.Parameter]]
    optimizer: torch.optim.Optimizer
    guidance: float | None
    fused: FusedBackward | None = None
    ema: Ema | None = None
    swap: BlockSwap | None = None
    text: TextLearner | None = None
    teacher: Teacher | None = None
    health: Health | None = None
    compiling: Compiling | None = None
    crew: Crew | None = None

    @property
    def is_finite(self) -> Tensor | None:
        """The flag of `health`, as it is after what has been noted until now."""
        return None if self.health is None else self.health.is_finite


def build_health(
    device: torch.device, optimizer: torch.optim.Optimizer, *, ema: Ema | None, swap: BlockSwap | None
) -> Health | None:
    """What decides on a GPU whether a step counts; None where the host has to wait in each step anyway: for an optimizer that has to be
    asked first, for a running mean or weights that are brought to the host."""
    is_there = (ema is None or ema.device == device) and (swap is None or not swap.is_trained)
    return Health(device) if device.type == "cuda" and is_there and can_skip(optimizer) else None
