"""Pixels, latents and tokens of FLUX.1.

Legend: B batch, C latent channels (16), H W latent size (1/8 of the pixels), N = (H/2)(W/2) image tokens.
Packing as in diffusers `FluxPipeline._pack_latents` and `_prepare_latent_image_ids`.
"""

from __future__ import annotations

import torch
from diffusers import AutoencoderKL
from torch import Tensor

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


def pack(latents_BCHW: Tensor) -> Tensor:
    """2 x 2 latents become one token: (B, N, 4C), channel-major."""
    B, C, H, W = latents_BCHW.shape
    return latents_BCHW.view(B, C, H // 2, 2, W // 2, 2).permute(0, 2, 4, 1, 3, 5).reshape(B, (H // 2) * (W // 2), C * 4)


def unpack(tokens_BNc: Tensor, height: int, width: int) -> Tensor:
    """The inverse of `pack` for latents of that height and width."""
    B, _, channels = tokens_BNc.shape
    tokens = tokens_BNc.view(B, height // 2, width // 2, channels // 4, 2, 2)
    return tokens.permute(0, 3, 1, 4, 2, 5).reshape(B, channels // 4, height, width)


def build_ids(num_text_tokens: int, height: int, width: int, device: torch.device) -> Tensor:
    """Positions (T + N, 3) of text (zeros) and image tokens (0, row, column)."""
    image = torch.zeros(height // 2, width // 2, 3)
    image[..., 1] += torch.arange(height // 2)[:, None]
    image[..., 2] += torch.arange(width // 2)[None, :]
    return torch.cat([torch.zeros(num_text_tokens, 3), image.flatten(0, 1)]).to(device)
