"""How far the predicted velocity is from the asked one, as rows: distances of single numbers, and weights of noise levels.

Legend: B batch, C latent channels, H W latent size.

References: [kohya] sd-scripts, `conditional_loss`, `get_huber_threshold_if_needed` and `compute_loss_weighting_for_sd3`; [SD3] Esser et
al. 2024, arXiv:2403.03206, appendix B.2.
"""

from __future__ import annotations

import math
from collections.abc import Callable

import torch
from torch import Tensor

from weber.config.objective import ObjectiveConfig

LOWEST_T = 1e-3
"""Noise levels below it weigh as much as it does where weights would grow without end: the lowest of the 1000 that [kohya] has."""

Distance = Callable[[Tensor, Tensor], Tensor]
"""Errors d (B, C, H, W) and where l2 goes to l1, c (B, 1, 1, 1), to losses of the errors' shape."""

Weighting = Callable[[Tensor], Tensor]
"""t (B,) to weights (B,)."""


def _l2(d: Tensor, c: Tensor) -> Tensor:
    return d.square()


def _l1(d: Tensor, c: Tensor) -> Tensor:
    return d.abs()


def _huber(d: Tensor, c: Tensor) -> Tensor:
    """2 c (sqrt(d^2 + c^2) - c), which is d^2 for small d [kohya; Charbonnier et al. 1994]."""
    return c * _smooth_l1(d, c)


def _smooth_l1(d: Tensor, c: Tensor) -> Tensor:
    """2 (sqrt(d^2 + c^2) - c), which is 2 |d| for large d [kohya]; written so that small d lose no digits."""
    return 2 * d.square() / ((d.square() + c.square()).sqrt() + c)


DISTANCES: dict[str, Distance] = {"l2": _l2, "l1": _l1, "huber": _huber, "smooth_l1": _smooth_l1}


def _sigma_sqrt(t_B: Tensor) -> Tensor:
    """t^-2 [kohya]."""
    return t_B.clamp(min=LOWEST_T) ** -2


def _cosmap(t_B: Tensor) -> Tensor:
    """2 / (pi (1 - 2 t + 2 t^2)) [SD3 eq. 22]."""
    return 2 / (math.pi * (1 - 2 * t_B + 2 * t_B.square()))


WEIGHTINGS: dict[str, Weighting] = {"none": torch.ones_like, "sigma_sqrt": _sigma_sqrt, "cosmap": _cosmap}


def build_huber_c(t_B: Tensor, config: ObjectiveConfig) -> Tensor:
    """Where the loss goes from l2 to l1 (B,): the same for all, or c^t, which is c at pure noise and 1 at the picture [kohya]."""
    return config.huber_c ** (t_B if config.huber_schedule == "exponential" else torch.ones_like(t_B))


def build_losses(
    velocity_BCHW: Tensor, target_BCHW: Tensor, t_B: Tensor, *, config: ObjectiveConfig, mask_B1HW: Tensor | None = None
) -> Tensor:
    """The loss of each sample: (B,) fp32. The mask is 0..1 and weighs the errors, at least with `mask_minimum`."""
    errors = velocity_BCHW.float() - target_BCHW
    losses = DISTANCES[config.loss](errors, build_huber_c(t_B, config).view(-1, 1, 1, 1))
    if mask_B1HW is None:
        losses_B = losses.mean(dim=(1, 2, 3))
    else:
        weights = config.mask_minimum + (1 - config.mask_minimum) * mask_B1HW
        losses_B = (losses * weights).mean(dim=(1, 2, 3))
        if config.mask_mean == "mask":
            area_B = weights.mean(dim=(1, 2, 3))
            losses_B = torch.where(area_B > 0, losses_B / area_B.clamp(min=torch.finfo(area_B.dtype).tiny), 0.0)
    return losses_B * WEIGHTINGS[config.weighting](t_B)
