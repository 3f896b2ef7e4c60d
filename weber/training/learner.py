"""What a step needs."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import torch
from torch import nn

from weber.config.run import RunConfig
from weber.families.family import Family, Predictor
from weber.kinds.text import TextLearner
from weber.memory.swap import BlockSwap
from weber.optim.ema import Ema
from weber.optim.fused import FusedBackward
from weber.training.compiling import Compiling
from weber.training.teacher import Teacher


@dataclass(frozen=True)
class Learner:
    """What a step needs: the network, what learns in it, and how it moves: all at once, or each weight in the backward pass (`fused`).

    `text`: the text encoder, where it learns too.
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
    compiling: Compiling | None = None
