"""Positions of the tokens of FLUX.3, as in diffusers 0.42 `modular_pipelines/flux3/before_denoise.py`.

Legend: B batch, C latent channels, H W latent size, N = H W image tokens, T text tokens.
"""

from __future__ import annotations

import torch
from torch import Tensor

_POSITION_SCALE = 0.5


def build_text_ids(num_tokens: int, device: torch.device) -> Tensor:
    """Positions (T, 4) of text tokens: (0, 0, 0, place)."""
    ids = torch.zeros(num_tokens, 4, device=device)
    ids[:, 3] = torch.arange(num_tokens, device=device)
    return ids


def build_image_ids(latents_BCHW: Tensor, layer: int) -> Tensor:
    """Positions (N, 4) of the tokens of latents: (0, row / 2, column / 2, layer). Layer 0 is the picture, -1, -2, ... its references."""
    height, width = latents_BCHW.shape[-2:]
    device = latents_BCHW.device
    ids = torch.zeros(height, width, 4, device=device)
    ids[..., 1] = _POSITION_SCALE * torch.arange(height, device=device)[:, None]
    ids[..., 2] = _POSITION_SCALE * torch.arange(width, device=device)
    ids[..., 3] = layer
    return ids.flatten(0, 1)
