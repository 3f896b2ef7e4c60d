"""Pixels, latents and tokens of FLUX.3.

Legend: B batch, C latent channels (128), H W latent size (1/16 of the pixels), N = H W image tokens, T text tokens.
As in diffusers 0.42 `modular_pipelines/flux3`: `encoders.py`, `before_denoise.py`, `decoders.py`, `image_processor.py`.
"""

from __future__ import annotations

import math

import torch
from diffusers import AutoencoderKLFlux2
from torch import Tensor
from torch.nn import functional

SCALE_PIXELS = 16
CHANNELS = 128
LARGEST_REFERENCE_PIXELS = 1024 * 1024
_POSITION_SCALE = 0.5


def encode_pixels(vae: AutoencoderKLFlux2, pixels_B3HW: Tensor) -> Tensor:
    """Mode of the posterior, 2 x 2 latents as one, normalized by the autoencoder's statistics: (B, C, H, W). Pixels are in -1..1."""
    latents = functional.pixel_unshuffle(vae.encode(pixels_B3HW.to(vae.device, vae.dtype)).latent_dist.mode(), 2)
    mean, deviation = _read_statistics(vae, latents)
    return (latents - mean) / deviation


def decode_pixels(vae: AutoencoderKLFlux2, latents_BCHW: Tensor) -> Tensor:
    """Pixels (B, 3, 16H, 16W) fp32 in -1..1."""
    latents = latents_BCHW.to(vae.device)
    mean, deviation = _read_statistics(vae, latents)
    latents = functional.pixel_shuffle(latents * deviation + mean, 2)
    pixels: Tensor = vae.decode(latents.to(vae.dtype), return_dict=False)[0]
    return pixels.float().clamp(-1, 1)


def pack(latents_BCHW: Tensor) -> Tensor:
    """Tokens (B, N, C), row by row."""
    return latents_BCHW.flatten(2).transpose(1, 2)


def unpack(tokens_BNC: Tensor, height: int, width: int) -> Tensor:
    """The inverse of `pack` for latents of that height and width."""
    return tokens_BNC.transpose(1, 2).reshape(len(tokens_BNC), -1, height, width)


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


def build_latent_shape(height: int, width: int) -> tuple[int, int, int]:
    """(C, H, W) of a picture of that many pixels."""
    return (CHANNELS, height // SCALE_PIXELS, width // SCALE_PIXELS)


def build_reference_size(width: int, height: int) -> tuple[int, int]:
    """(width, height) of a reference that keeps its own shape: at most a megapixel, sides down to multiples of 16.

    That is what the pipeline does to each of several references, but it crops the last pixels where we scale. A reference that is the
    only one it keeps whole up to 4 megapixels, mirrored out to multiples of 16; here one is treated as several are.
    """
    scale = min(1.0, math.sqrt(LARGEST_REFERENCE_PIXELS / (width * height)))
    return _align(int(width * scale)), _align(int(height * scale))


def _align(pixels: int) -> int:
    return max(SCALE_PIXELS, pixels // SCALE_PIXELS * SCALE_PIXELS)


def _read_statistics(vae: AutoencoderKLFlux2, like: Tensor) -> tuple[Tensor, Tensor]:
    """Mean and standard deviation (1, C, 1, 1) of each channel, on the device and in the dtype of `like`."""
    mean = vae.bn.running_mean.view(1, -1, 1, 1)
    deviation = torch.sqrt(vae.bn.running_var.view(1, -1, 1, 1) + vae.config.batch_norm_eps)
    return mean.to(like), deviation.to(like)
