"""How far the predicted velocity is from the asked one, as rows: distances of single numbers, and weights of noise levels.

Legend: B batch, C latent channels, H W latent size.
"""

from __future__ import annotations

from torch import Tensor

from weber.config.objective import ObjectiveConfig


def build_losses(
    velocity_BCHW: Tensor, target_BCHW: Tensor, t_B: Tensor, *, config: ObjectiveConfig, mask_B1HW: Tensor | None = None
) -> Tensor:
    """The loss of each sample: (B,) fp32."""
    return (velocity_BCHW.float() - target_BCHW).square().mean(dim=(1, 2, 3))
