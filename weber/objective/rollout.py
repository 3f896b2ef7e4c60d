"""Scheduled sampling: the network's own steps as its input, so that it learns to mend its own errors.

Bengio et al. 2015, arXiv:1506.03099; of diffusion models Ning et al. 2023, arXiv:2301.11706. The input starts on the straight line at a
higher noise level, k Euler steps lead down to t, and the velocity that is wanted leads from there to the picture.

Legend: B batch, C latent channels, H W latent size.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping, Sequence

import torch
from torch import Tensor

from weber.config.objective import RolloutConfig
from weber.objective.flow import build_noisy

Predict = Callable[[Tensor, Tensor, Mapping[str, Tensor]], Tensor]


def build_probability(config: RolloutConfig, step: int) -> float:
    """The share of samples with a rollout at a step of the run: 0 before the ramp, then along it."""
    if step < config.start_step:
        return 0.0
    along = min(1.0, (step - config.start_step) / config.ramp_steps) if config.ramp_steps else 1.0
    if config.ramp == "cosine":
        along = (1 - math.cos(math.pi * along)) / 2
    return config.start_probability + along * (config.probability - config.start_probability)


def draw_num_steps(config: RolloutConfig, uniform: float) -> int:
    """How many steps lead to the input, 1 to `max_steps`, by a uniform draw: few and many have a density that falls or rises linearly."""
    place = {"uniform": uniform, "early": 1 - math.sqrt(1 - uniform), "late": math.sqrt(uniform)}[config.strategy]
    return min(config.max_steps, 1 + int(config.max_steps * place))


@torch.no_grad()
def predict_rollout(
    predict: Predict,
    latents_BCHW: Tensor,
    noise_BCHW: Tensor,
    t_B: Tensor,
    *,
    condition: Mapping[str, Tensor],
    num_steps: Sequence[int],
    step_size: float,
) -> Tensor:
    """What the network makes of x at t' = min(1, t + k `step_size`) in k Euler steps down to t: (B, C, H, W) fp32.

    k is `num_steps` of the sample, 0 for none. A pass is made of those samples only that have a step left, so none sees another's.
    """
    count_B = torch.tensor(num_steps, device=t_B.device)
    stride_B = ((t_B + count_B * step_size).clamp(max=1) - t_B) / count_B.clamp(min=1)
    x_BCHW = build_noisy(latents_BCHW, noise_BCHW, t_B + count_B * stride_B)
    for left in range(max(num_steps), 0, -1):
        chosen = torch.tensor([place for place, number in enumerate(num_steps) if number >= left], device=t_B.device)
        told = {name: tensor[chosen] for name, tensor in condition.items()}
        velocity = predict(x_BCHW[chosen], (t_B + left * stride_B)[chosen], told).float()
        x_BCHW[chosen] -= stride_B[chosen].view(-1, 1, 1, 1) * velocity
    return x_BCHW


def build_return(x_BCHW: Tensor, latents_BCHW: Tensor, t_B: Tensor) -> Tensor:
    """The velocity that leads from x at t to the picture: (x - x0) / t, which is noise - x0 on the straight line; t is above 0."""
    return (x_BCHW - latents_BCHW) / t_B.view(-1, 1, 1, 1)
