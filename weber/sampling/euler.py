"""From noise to latents: Euler steps along the predicted velocity.

Legend: B pictures, C channels, H W latent size.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

Predict = Callable[[Tensor, Tensor, Mapping[str, Tensor]], Tensor]


@dataclass(frozen=True)
class Painting:
    """One picture to be painted: its size as latents, its noise and what the network is told (each tensor with B = 1).

    `cfg` above 1: classifier-free guidance away from `negative`, which then is a whole condition too, but not in the first `no_cfg_until`
    steps. `texts`: what was asked for, and the
    text of `negative`, for a text encoder that learns. `steps`: of the sampler, None: as many as for all; `strength`: of what was trained,
    times that of all.
    """

    shape: tuple[int, int, int]
    seed: int
    condition: Mapping[str, Tensor]
    negative: Mapping[str, Tensor] | None = None
    cfg: float = 1.0
    texts: tuple[str, str] | None = None
    steps: int | None = None
    strength: float = 1.0
    no_cfg_until: int = 0


def draw_start(painting: Painting, device: torch.device) -> Tensor:
    """Pure noise (1, C, H, W) fp32, drawn on the CPU as diffusers does with `torch.Generator().manual_seed(seed)`."""
    generator = torch.Generator().manual_seed(painting.seed)
    return torch.randn(1, *painting.shape, generator=generator).to(device)


def _count_nothing(done: int) -> None:
    """For those who do not want to know."""


@torch.no_grad()
def predict_latents(
    predict: Predict,
    start_BCHW: Tensor,
    sigmas: Sequence[float],
    condition: Mapping[str, Tensor],
    *,
    report: Callable[[int], None] = _count_nothing,
) -> Tensor:
    """Latents at the last of `sigmas`, which fall from 1 to 0: x' = x + (sigma' - sigma) velocity, in fp32.

    `report` is told before each step how many are done.
    """
    latents = start_BCHW
    for number, (sigma, following) in enumerate(zip(sigmas[:-1], sigmas[1:], strict=True)):
        report(number)
        t_B = torch.full((len(latents),), sigma, dtype=torch.float32, device=latents.device)
        latents = latents + (following - sigma) * predict(latents, t_B, condition).float()
    return latents
