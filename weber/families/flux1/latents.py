"""Pixels, latents and tokens of FLUX.1.

Legend: B batch, C latent channels (16), H W latent size (1/8 of the pixels), N = (H/2)(W/2) tokens of a picture, T text tokens.
Packing as in diffusers `FluxPipeline._pack_latents` and `_prepare_latent_image_ids`.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING

import torch
from torch import Tensor

if TYPE_CHECKING:
    from diffusers import AutoencoderKL

SCALE_PIXELS = 8
ALIGNMENT_PIXELS = 16


def encode_pixels(vae: AutoencoderKL, pixels_B3HW: Tensor) -> Tensor:
    """Mode of the posterior, shifted and scaled: (B, C, H, W). Pixels are in -1..1."""
    latents: Tensor = vae.encode(pixels_B3HW.to(vae.device, vae.dtype)).latent_dist.mode()
    normalized: Tensor = (latents - vae.config.shift_factor) * vae.config.scaling_factor
    return normalized


def decode_pixels(vae: AutoencoderKL, latents_BCHW: Tensor) -> Tensor:
    """Pixels (B, 3, 8H, 8W) fp32 in -1..1."""
    latents = latents_BCHW.to(vae.device, vae.dtype) / vae.config.scaling_factor + vae.config.shift_factor
    pixels: Tensor = vae.decode(latents, return_dict=False)[0]
    return pixels.float().clamp(-1, 1)


def encode_masked(vae: AutoencoderKL, pixels_B3HW: Tensor, *, masks_B1HW: Tensor) -> tuple[Tensor, Tensor]:
    """What a model that repaints is told, as in diffusers `FluxFillPipeline`: latents of the picture with its masked pixels at 0, and
    the mask with each 8 x 8 pixels as 64 channels (B, 64, H, W). Masks count from 0.5 on.

    The pipeline draws these latents from the posterior; here they are its mode, as all latents are.
    """
    masks = (masks_B1HW >= 0.5).to(pixels_B3HW)
    latents = encode_pixels(vae, pixels_B3HW * (1 - masks))
    B, _, H, W = latents.shape
    folded = masks.view(B, H, SCALE_PIXELS, W, SCALE_PIXELS).permute(0, 2, 4, 1, 3).reshape(B, SCALE_PIXELS**2, H, W)
    return latents, folded.to(latents)


def pack(latents_BCHW: Tensor) -> Tensor:
    """2 x 2 latents become one token: (B, N, 4C), channel-major."""
    B, C, H, W = latents_BCHW.shape
    return latents_BCHW.view(B, C, H // 2, 2, W // 2, 2).permute(0, 2, 4, 1, 3, 5).reshape(B, (H // 2) * (W // 2), C * 4)


def unpack(tokens_BNc: Tensor, height: int, width: int) -> Tensor:
    """The inverse of `pack` for latents of that height and width."""
    B, _, channels = tokens_BNc.shape
    tokens = tokens_BNc.view(B, height // 2, width // 2, channels // 4, 2, 2)
    return tokens.permute(0, 3, 1, 4, 2, 5).reshape(B, channels // 4, height, width)


def build_ids(num_text_tokens: int, sizes: Sequence[tuple[int, int]]) -> Tensor:
    """Positions (T + N + ..., 3) of text (zeros), of the picture (0, row, column) and of references (1, row, column).

    `sizes`: (height, width) as latents, of the picture and then of its references. One reference lies where `FluxKontextPipeline` puts
    it; more are put beside or below those before so that none lies on another and the side of them all stays small, as ComfyUI's
    `ldm/flux/model.py` and SimpleTuner do.
    """
    (height, width), *references = [(H // 2, W // 2) for H, W in sizes]
    ids = [torch.zeros(num_text_tokens, 3), _build_grid(0, range(height), range(width))]
    bottom = right = 0
    for height, width in references:
        top, left = (0, right) if height + bottom > width + right else (bottom, 0)
        ids.append(_build_grid(1, range(top, top + height), range(left, left + width)))
        bottom, right = max(bottom, top + height), max(right, left + width)
    return torch.cat(ids)


def _build_grid(first: int, rows: range, columns: range) -> Tensor:
    return torch.cartesian_prod(torch.tensor([float(first)]), torch.tensor(rows).float(), torch.tensor(columns).float())
