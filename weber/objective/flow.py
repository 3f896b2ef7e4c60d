"""Flow matching: a straight line from picture to noise, and the network asked for its velocity.

Legend: B batch, C channels, H W latent size. Liu et al. 2022 (rectified flow), arXiv:2209.03003; Lipman et al. 2022, arXiv:2210.02747.
"""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor


def draw_noise(latents_BCHW: Tensor, seeds: Sequence[int]) -> Tensor:
    """Standard normal noise of the latents' shape, fp32, one seed per sample; drawn, and left, on the CPU, so equal on every device."""
    noise = [torch.randn(latents_BCHW.shape[1:], generator=torch.Generator().manual_seed(seed)) for seed in seeds]
    return torch.stack(noise)


def build_noisy(latents_BCHW: Tensor, noise_BCHW: Tensor, t_B: Tensor) -> Tensor:
    """x_t = (1 - t) x0 + t noise, in fp32."""
    t = t_B.view(-1, 1, 1, 1)
    return (1 - t) * latents_BCHW + t * noise_BCHW


def build_target(latents_BCHW: Tensor, noise_BCHW: Tensor) -> Tensor:
    """The velocity of the straight line: noise - x0."""
    return noise_BCHW - latents_BCHW
