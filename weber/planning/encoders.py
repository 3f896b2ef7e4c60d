"""The encoders of a model as `[memory]` has them: text encoders in fewer bits, the autoencoder in tiles."""

from __future__ import annotations

from typing import Any

import torch
from torch import nn

from weber.cache.encode import Encoders
from weber.cache.served import TextServer
from weber.cache.text_forms import FULL, TextForm
from weber.config.memory import MemoryConfig, Precision
from weber.config.model import ModelConfig
from weber.config.run import RunConfig
from weber.errors import ConfigError
from weber.families.family import Family
from weber.memory.load import build_encoder_fill

TILE_PIXELS = 512
"""Edge of a tile, of which a quarter overlaps the next. The libraries' own 1024 saves nothing for pictures of that size."""


def check_encoders(config: RunConfig, family: Family) -> None:
    """Refuse precisions of text encoders that the model does not have, or that are not here."""
    if config.memory.quantize_text_encoder_2 != "none" and len(family.text_parts) < 2:
        raise ConfigError(
            f"The model {family.variant} has one text encoder.",
            got=f'memory.quantize_text_encoder_2 = "{config.memory.quantize_text_encoder_2}"',
            fix="remove it; memory.quantize_text_encoder is for the one that there is",
        )


    if config.model.text_encoder_url is None:
        return
    chosen = [
        f'memory.{name} = "{bits}"'
        for name in ("quantize_text_encoder", "quantize_text_encoder_2")
        if (bits := config.memory.model_dump()[name]) != "none"
    ]
    if chosen:
        raise ConfigError(
            "Another machine encodes texts, so no text encoder is read here.",
            got=f"{' and '.join(chosen)} with model.text_encoder_url",
            fix="remove it here, and give it to weber serve-text there",
        )
    if config.adapter.text_encoder:
        raise ConfigError(
            "A text encoder that learns has to be on this machine.",
            got="adapter.text_encoder = true with model.text_encoder_url",
            fix="remove one of them",
        )


def find_served(config: ModelConfig, family: Family, *, dtype: torch.dtype) -> TextServer | None:
    """The machine that encodes texts for this one, if there is one, once it has said that it has those of this model. Raises ModelError."""
    if config.text_encoder_url is None:
        return None
    served = TextServer(config.text_encoder_url, family, dtype)
    served.identify(family.text_parts[0])
    return served


def list_precisions(family: Family, memory: MemoryConfig) -> dict[str, Precision]:
    """Of each text part."""
    return dict(zip(family.text_parts, (memory.quantize_text_encoder, memory.quantize_text_encoder_2), strict=False))


def build_encoders(
    family: Family,
    memory: MemoryConfig,
    *,
    device: torch.device,
    dtype: torch.dtype,
    texts: TextForm = FULL,
    served: TextServer | None = None,
) -> Encoders:
    """The encoders of a model on their device; `served`: the machine that has those of texts. What is unlike the plain encoder has its
    own identity, so nothing stale can be read."""
    precisions = list_precisions(family, memory)

    def identify(part: str) -> str:
        if part == family.image_part:
            return family.identify(part) + (f"+tiled{TILE_PIXELS}" if memory.vae_tiling else "")
        if served is not None:
            return served.identify(part) + encoders.find_form(part).identity
        precision = precisions[part]
        return family.identify(part) + ("" if precision == "none" else f"+{precision}") + encoders.find_form(part).identity

    def load(part: str) -> nn.Module:
        if part == family.image_part:
            encoder = family.load(part, device=device, dtype=dtype)
            return _tile(encoder) if memory.vae_tiling else encoder
        if served is not None:
            return nn.Identity()
        fill = None if precisions[part] == "none" else build_encoder_fill(memory, precisions[part], device=device)
        return family.load(part, device=device, dtype=dtype, fill=fill)

    encoders = Encoders(family, device, dtype, identify, load, texts, served)
    return encoders


def _tile(encoder: Any) -> nn.Module:
    """Of a library's autoencoder; each of its levels but the last halves the picture."""
    encoder.enable_tiling()
    encoder.tile_sample_min_size = TILE_PIXELS
    encoder.tile_latent_min_size = TILE_PIXELS // 2 ** (len(encoder.config.block_out_channels) - 1)
    assert isinstance(encoder, nn.Module)
    return encoder
