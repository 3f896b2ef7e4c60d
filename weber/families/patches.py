"""Pixels, latents and tokens of the autoencoder of FLUX.2, which FLUX.3 has too.

Legend: B batch, C channels of the latents (128 = 32 x 2 x 2), H W latent size (1/16 of the pixels), N = H W image tokens.
The autoencoder's own latents (B, 32, 2H, 2W) are cut into 2 x 2 patches and normalized by its batch-norm statistics, as in diffusers
`Flux2Pipeline` and `modular_pipelines/flux3`; every place of (B, C, H, W) is then one token.
"""

from __future__ import annotations

import math
from typing import TYPE_CHECKING

import torch
from torch import Tensor, nn
from torch.nn import functional

if TYPE_CHECKING:
    from diffusers import AutoencoderKLFlux2

SCALE_PIXELS = 16
CHANNELS = 128
REFERENCE_PIXELS = 1024 * 1024


def encode_images(encoder: nn.Module, pixels: Tensor, *, masks: Tensor | None = None) -> dict[str, Tensor]:
    """See `Family.encode_images`: `latents`, the mode of the posterior, in patches, normalized. There are no masks."""
    from diffusers import AutoencoderKLFlux2

    assert isinstance(encoder, AutoencoderKLFlux2) and masks is None
    latents = functional.pixel_unshuffle(encoder.encode(pixels.to(encoder.device, encoder.dtype)).latent_dist.mode(), 2)
    mean, deviation = _read_statistics(encoder, latents)
    return {"latents": (latents - mean) / deviation}


def decode_latents(encoder: nn.Module, latents: Tensor) -> Tensor:
    """See `Family.decode_latents`."""
    from diffusers import AutoencoderKLFlux2

    assert isinstance(encoder, AutoencoderKLFlux2)
    latents = latents.to(encoder.device)
    mean, deviation = _read_statistics(encoder, latents)
    latents = functional.pixel_shuffle(latents * deviation + mean, 2)
    pixels: Tensor = encoder.decode(latents.to(encoder.dtype), return_dict=False)[0]
    return pixels.float().clamp(-1, 1)


def pack(latents_BCHW: Tensor) -> Tensor:
    """One token for every place, row by row: (B, N, C)."""
    return latents_BCHW.flatten(2).transpose(1, 2)


def unpack(tokens_BNC: Tensor, height: int, width: int) -> Tensor:
    """The inverse of `pack` for latents of that height and width."""
    return tokens_BNC.transpose(1, 2).reshape(len(tokens_BNC), -1, height, width)


def build_latent_shape(height: int, width: int) -> tuple[int, int, int]:
    """(C, H, W) of a picture of that many pixels."""
    return (CHANNELS, height // SCALE_PIXELS, width // SCALE_PIXELS)


def build_reference_size(width: int, height: int) -> tuple[int, int]:
    """(width, height) of a reference that keeps its own shape: at most a megapixel, sides down to multiples of 16.

    That is what the pipelines do to each of several references, but they crop the last pixels where we scale. A reference that is the
    only one FLUX.3 keeps whole up to 4 megapixels, mirrored out to multiples of 16; here one is treated as several are.
    """
    scale = min(1.0, math.sqrt(REFERENCE_PIXELS / (width * height)))
    return _align(int(width * scale)), _align(int(height * scale))


def _align(pixels: int) -> int:
    return max(SCALE_PIXELS, pixels // SCALE_PIXELS * SCALE_PIXELS)


def _read_statistics(vae: AutoencoderKLFlux2, like: Tensor) -> tuple[Tensor, Tensor]:
    """Mean and standard deviation (1, C, 1, 1) of each channel, on the device and in the dtype of `like`."""
    mean = vae.bn.running_mean.view(1, -1, 1, 1)
    deviation = torch.sqrt(vae.bn.running_var.view(1, -1, 1, 1) + vae.config.batch_norm_eps)
    return mean.to(like), deviation.to(like)
