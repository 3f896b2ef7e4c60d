"""Updates that the device itself leaves out: whether a step's numbers are finite is known there before the host could ask."""

from __future__ import annotations

import torch
from torch import Tensor

from weber.optim.stepper import Stepper


def can_skip(optimizer: torch.optim.Optimizer) -> bool:
    """Whether an optimizer is one of those that can: ours, and PyTorch's AdamW with its fused kernel. All others have to be asked first."""
    return isinstance(optimizer, Stepper) or (type(optimizer) is torch.optim.AdamW and optimizer.defaults["fused"] is True)


def step_where(optimizer: torch.optim.Optimizer, is_finite: Tensor | None) -> None:
    """One update, where the flag (on the device) is true; None: in any case, which all optimizers can."""
    if is_finite is None:
        optimizer.step()
    elif isinstance(optimizer, Stepper):
        optimizer.step_where(is_finite)
    else:
        # What `torch.amp.GradScaler` tells fused kernels, which then leave parameters, moments and steps as they are.
        optimizer.found_inf = (~is_finite).float()  # type: ignore[attr-defined]
        optimizer.step()
