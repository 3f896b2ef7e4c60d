"""Update rules: how the numbers of a parameter follow from its gradient and its moments. Everything is fp32 and changed in place."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

ADAFACTOR_DECAY = 0.8
"""The second moment of step t is a mean in which the new square weighs t ** -0.8, the value of the paper."""


@dataclass(frozen=True)
class Move:
    """What one update of one parameter needs beside its tensors.

    `step` counts from 1. `is_finite` is a flag on the parameter's device: where it is false the update changes nothing; None: it happens.
    """

    lr: float
    betas: tuple[float, float]
    eps: float
    weight_decay: float
    step: int
    generator: torch.Generator
    is_finite: Tensor | None


def write_adamw(value: Tensor, gradient: Tensor, *, moments: Sequence[Tensor], move: Move) -> None:
    """Loshchilov & Hutter 2019, arXiv:1711.05101; the operations of `torch.optim.AdamW` in their order."""
    mean, square = moments
    beta1, beta2 = move.betas
    mean.lerp_(gradient, 1 - beta1)
    square.mul_(beta2).addcmul_(gradient, gradient, value=1 - beta2)
    denominator = square.sqrt().div_(math.sqrt(1 - beta2**move.step)).add_(move.eps)
    value.mul_(1 - move.lr * move.weight_decay)
    value.addcdiv_(mean, denominator, value=-move.lr / (1 - beta1**move.step))


def write_lion(value: Tensor, gradient: Tensor, *, moments: Sequence[Tensor], move: Move) -> None:
    """Chen et al. 2023, arXiv:2302.06675: the sign of a mean of gradient and momentum, with decoupled weight decay."""
    (mean,) = moments
    beta1, beta2 = move.betas
    direction = torch.lerp(mean, gradient, 1 - beta1).sign_()
    mean.lerp_(gradient, 1 - beta2)
    value.mul_(1 - move.lr * move.weight_decay).add_(direction, alpha=-move.lr)


def write_factors(row: Tensor, column: Tensor, *, row_mean: Tensor, column_mean: Tensor, move: Move) -> None:
    """The factored second moment of Adafactor takes in the mean squares of a gradient's rows and columns (the paper's equations 4-6)."""
    weight = move.step**-ADAFACTOR_DECAY
    row.lerp_(row_mean, weight)
    column.lerp_(column_mean, weight)


def build_direction(gradient: Tensor, row: Tensor, *, row_scale: Tensor, column: Tensor, move: Move) -> Tensor:
    """Rows of a gradient over the root of their second moment, row x column / mean of all rows, the root being at least `eps`.

    Adafactor, Shazeer & Stern 2018, arXiv:1804.04235; where the paper adds to squares, `eps` bounds roots, as in `torch.optim.Adafactor`.
    """
    return torch.outer(row / row_scale, column).clamp_(min=move.eps**2).rsqrt_().mul_(gradient)


def write_adafactor(value: Tensor, direction: Tensor, *, mean_square: Tensor, move: Move) -> None:
    """Adafactor with the learning rate as given: neither relative to the size of the parameter nor falling with the step.

    Update clipping with d = 1: `mean_square` is that of the whole direction; a root above 1 divides it. Weight decay is decoupled.
    """
    length = move.lr / mean_square.sqrt().clamp(min=1.0)
    value.mul_(1 - move.lr * move.weight_decay).sub_(direction * length)
