"""The encoders of a model as `[memory]` has them: text encoders in fewer bits, the autoencoder in tiles."""

from __future__ import annotations

from typing import Any

import torch
from torch import nn

from weber.cache.encode import Encoders
from weber.cache.text_forms import FULL, TextForm
from weber.config.memory import MemoryConfig, Precision
from weber.config.run import RunConfig
from weber.errors import ConfigError
from weber.families.family import Family
from weber.memory.load import build_encoder_fill

TILE_PIXELS = 512
"""Edge of a tile, of which a quarter overlaps the next. The libraries' own 1024 saves nothing for pictures of that size."""


def check_encoders(config: RunConfig, family: Family) -> None:
    """Refuse precisions of text encoders that the model does not have."""
    if config.memory.quantize_text_encoder_2 != "none" and len(family.text_parts) < 2:
        raise ConfigError(
            f"The model {family.variant} has one text encoder.",
            got=f'memory.quantize_text_encoder_2 = "{config.memory.quantize_text_encoder_2}"',
            fix="remove it; memory.quantize_text_encoder is for the one that there is",
        )


def build_encoders(
    family: Family, memory: MemoryConfig, *, device: torch.device, dtype: torch.dtype, texts: TextForm = FULL
) -> Encoders:
    """The encoders of a model on their device. What is unlike the plain encoder has its own identity, so nothing stale can be read."""
    chosen = (memory.quantize_text_encoder, memory.quantize_text_encoder_2)
    precisions: dict[str, Precision] = dict(zip(family.text_parts, chosen, strict=False))

    def identify(part: str) -> str:
        if part == family.image_part:
            return family.identify(part) + (f"+tiled{TILE_PIXELS}" if memory.vae_tiling else "")
        precision = precisions[part]
        return family.identify(part) + ("" if precision == "none" else f"+{precision}") + encoders.find_form(part).identity

    def load(part: str) -> nn.Module:
        if part == family.image_part:
            encoder = family.load(part, device=device, dtype=dtype)
            return _tile(encoder) if memory.vae_tiling else encoder
        fill = None if precisions[part] == "none" else build_encoder_fill(memory, precisions[part], device=device)
        return family.load(part, device=device, dtype=dtype, fill=fill)

    encoders = Encoders(family, device, dtype, identify, load, texts)
    return encoders


def _tile(encoder: Any) -> nn.Module:
    """Of a library's autoencoder; each of its levels but the last halves the picture."""
    encoder.enable_tiling()
    encoder.tile_sample_min_size = TILE_PIXELS
    encoder.tile_latent_min_size = TILE_PIXELS // 2 ** (len(encoder.config.block_out_channels) - 1)
    assert isinstance(encoder, nn.Module)
    return encoder
