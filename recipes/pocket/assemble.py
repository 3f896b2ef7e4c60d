"""From trained networks to the model's folder in diffusers layout, in bf16."""

from __future__ import annotations

import json
from pathlib import Path

import torch
from diffusers import AutoencoderKL
from torch import Tensor

from recipes.pocket.artwork import Artwork
from recipes.pocket.captions import BACKGROUNDS
from recipes.pocket.painter import TEXT_TOKENS, EncodedArtwork, Painter
from recipes.pocket.vae import build_pixels
from weber.families.flux1.latents import encode_pixels
from weber.pocket.folder import Part, build_scheduler, write_folder

_BATCH = 64


@torch.no_grad()
def encode_artwork(vae: AutoencoderKL, artwork: Artwork) -> EncodedArtwork:
    """Every picture on every background as normalized latents, by the encoder as it will be shipped."""
    latents: dict[str, Tensor] = {}
    for name, color in BACKGROUNDS.items():
        pixels = build_pixels(artwork.build_colors(color))
        latents[name] = torch.cat([encode_pixels(vae, batch) for batch in pixels.split(_BATCH)])
    return EncodedArtwork(latents, artwork.concepts, artwork.styles)


def write_model(folder: Path, *, vae: AutoencoderKL, painter: Painter) -> Path:
    """Write the finished model; returns its folder."""
    positions = painter.clip.embeddings.position_embedding.weight.data
    positions[TEXT_TOKENS:] = positions[TEXT_TOKENS - 1]  # no caption was longer
    parts: dict[str, Part] = {
        "transformer": painter.transformer.bfloat16(),
        "vae": vae.bfloat16(),
        "text_encoder": painter.clip.bfloat16(),
        "text_encoder_2": painter.t5.bfloat16(),
        "tokenizer": painter.clip_tokenizer,
        "tokenizer_2": painter.t5_tokenizer,
        "scheduler": build_scheduler("dev"),
    }
    write_folder(folder, parts)
    for name in ("text_encoder", "text_encoder_2"):
        _write_dtype(folder / name / "config.json")
    return folder


def _write_dtype(file: Path) -> None:
    """transformers would load these files in bf16 unasked, diffusers its own in fp32: `from_pretrained` alone would mix both."""
    config = json.loads(file.read_text(encoding="utf-8"))
    file.write_text(json.dumps(config | {"dtype": "float32"}, indent=2) + "\n", encoding="utf-8", newline="\n")
