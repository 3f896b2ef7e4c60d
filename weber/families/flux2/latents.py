"""Pixels, latents and tokens of FLUX.2.

Legend: B batch, C channels of the latents (128 = 32 x 2 x 2), H W latent size (1/16 of the pixels), N = H W image tokens.
The autoencoder's own latents (B, 32, 2H, 2W) are cut into 2 x 2 patches and normalized by its batch-norm statistics, as in diffusers
`Flux2Pipeline._encode_vae_image`; every place of (B, C, H, W) is then one token.
"""

from __future__ import annotations

import math
from collections.abc import Sequence

import torch
from diffusers import AutoencoderKLFlux2
from torch import Tensor

ALIGNMENT_PIXELS = 16
CHANNELS = 128
REFERENCE_PIXELS = 1024 * 1024
_REFERENCE_TIME = 10  # ids of the first reference; each further one is as far from the one before


def encode_pixels(vae: AutoencoderKLFlux2, pixels_B3HW: Tensor) -> Tensor:
    """Mode of the posterior, in patches, normalized: (B, C, H, W). Pixels (B, 3, 16H, 16W) are in -1..1."""
    latents = _patchify(vae.encode(pixels_B3HW.to(vae.device, vae.dtype)).latent_dist.mode())
    mean, std = _read_statistics(vae)
    return (latents - mean) / std


def decode_pixels(vae: AutoencoderKLFlux2, latents_BCHW: Tensor) -> Tensor:
    """Pixels (B, 3, 16H, 16W) fp32 in -1..1."""
    mean, std = _read_statistics(vae)
    latents = latents_BCHW.to(vae.device, vae.dtype) * std + mean
    pixels: Tensor = vae.decode(_unpatchify(latents), return_dict=False)[0]
    return pixels.float().clamp(-1, 1)


def pack(latents_BCHW: Tensor) -> Tensor:
    """One token for every place, row by row: (B, N, C)."""
    return latents_BCHW.flatten(2).transpose(1, 2)


def unpack(tokens_BNC: Tensor, height: int, width: int) -> Tensor:
    """The inverse of `pack` for latents of that height and width."""
    return tokens_BNC.transpose(1, 2).reshape(len(tokens_BNC), -1, height, width)


def build_ids(num_text_tokens: int, sizes: Sequence[tuple[int, int]], device: torch.device) -> Tensor:
    """Positions (T + N, 4) of text tokens (0, 0, 0, place) and of the tokens (time, row, column, 0) of pictures of those latent sizes.

    The first picture is the one that is painted, at time 0; references follow at 10, 20, ...
    """
    zero = torch.zeros(1)
    ids = [torch.cartesian_prod(zero, zero, zero, torch.arange(float(num_text_tokens)))]
    for number, (height, width) in enumerate(sizes):
        time = zero + _REFERENCE_TIME * number
        ids.append(torch.cartesian_prod(time, torch.arange(float(height)), torch.arange(float(width)), zero))
    return torch.cat(ids).to(device)


def build_latent_shape(height: int, width: int) -> tuple[int, int, int]:
    """(C, H, W) of a picture of that many pixels."""
    return (CHANNELS, height // ALIGNMENT_PIXELS, width // ALIGNMENT_PIXELS)


def build_reference_size(width: int, height: int) -> tuple[int, int]:
    """(width, height) of a reference in its own shape: at most 1024 x 1024 pixels, sides multiples of 16, as `Flux2Pipeline` has it."""
    if width * height > REFERENCE_PIXELS:
        scale = math.sqrt(REFERENCE_PIXELS / (width * height))
        width, height = int(width * scale), int(height * scale)
    return max(width // ALIGNMENT_PIXELS, 1) * ALIGNMENT_PIXELS, max(height // ALIGNMENT_PIXELS, 1) * ALIGNMENT_PIXELS


def _patchify(latents: Tensor) -> Tensor:
    """(B, 32, 2H, 2W) to (B, C, H, W), channel-major; C counts channel, row and column within a patch."""
    B, channels, height, width = latents.shape
    patches = latents.view(B, channels, height // 2, 2, width // 2, 2).permute(0, 1, 3, 5, 2, 4)
    return patches.reshape(B, channels * 4, height // 2, width // 2)


def _unpatchify(latents_BCHW: Tensor) -> Tensor:
    B, C, H, W = latents_BCHW.shape
    return latents_BCHW.view(B, C // 4, 2, 2, H, W).permute(0, 1, 4, 2, 5, 3).reshape(B, C // 4, H * 2, W * 2)


def _read_statistics(vae: AutoencoderKLFlux2) -> tuple[Tensor, Tensor]:
    """Mean and standard deviation of every channel, (1, C, 1, 1)."""
    variance = vae.bn.running_var.view(1, -1, 1, 1)
    return vae.bn.running_mean.view(1, -1, 1, 1), torch.sqrt(variance + vae.config.batch_norm_eps)
