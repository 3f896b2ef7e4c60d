"""Courses of the learning rate: pure functions of the share of the run that is done."""

from __future__ import annotations

import math
from collections.abc import Callable

import torch

from weber.config.optim import OptimConfig

COURSES: dict[str, Callable[[float, float], float]] = {
    "constant": lambda share, power: 1.0,
    "linear": lambda share, power: 1.0 - share,
    "cosine": lambda share, power: 0.5 * (1.0 + math.cos(math.pi * share)),
    "cosine_with_restarts": lambda share, cycles: 0.0 if share == 1.0 else 0.5 * (1.0 + math.cos(math.pi * (cycles * share % 1.0))),
    "polynomial": lambda share, power: (1.0 - share) ** power,
}
"""From 1 at share 0 to 0 at share 1 (but `constant`); the second number is the power of a polynomial, or how many cosines there are."""


def build_schedule(config: OptimConfig, *, num_steps: int) -> Callable[[int], float]:
    """Learning rate of step n, counted from 0: up to `lr` over the warm-up, then down toward `end_lr`.

    As in diffusers' `get_scheduler`, `end_lr` would be reached one step after the last, so that no step is wasted on a rate of 0.
    """
    assert config.lr is not None, "the resolved config has a learning rate"
    top, end, course = config.lr, config.end_lr, COURSES[config.schedule]
    number = config.num_cycles if config.schedule == "cosine_with_restarts" else 1.0 if config.power is None else config.power
    num_falling = max(num_steps - config.warmup_steps, 1)

    def learning_rate(step: int) -> float:
        if step < config.warmup_steps:
            return top * (step + 1) / config.warmup_steps
        share = min((step - config.warmup_steps) / num_falling, 1.0)
        return end + (top - end) * course(share, number)

    return learning_rate


def write_learning_rate(optimizer: torch.optim.Optimizer, learning_rate: float) -> None:
    """Use this learning rate from the next step on, times the `rate` of each group."""
    for group in optimizer.param_groups:
        rate = learning_rate * group.get("rate", 1.0)
        if isinstance(group["lr"], torch.Tensor):
            group["lr"].fill_(rate)
        else:
            group["lr"] = rate
