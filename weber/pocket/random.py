"""A small FLUX.1 with random weights in diffusers layout: made offline in a second from the library's own classes."""

from __future__ import annotations

from pathlib import Path
from typing import Literal

import torch

from weber.families.flux1.variants import VARIANTS
from weber.pocket.folder import Part, build_scheduler, write_folder
from weber.pocket.networks import LATENT_CHANNELS, TINY, PocketSize, build_clip, build_t5, build_transformer, build_vae
from weber.pocket.words import build_clip_tokenizer, build_t5_tokenizer

_LATENT_GAIN = 8.0  # the library's initial weights give latents of a 1/8 of the standard deviation that a trained encoder's have
_LOG_VARIANCE = -30.0  # and a posterior as wide as the latents, where a trained encoder's is narrow


def build_random_model(
    folder: Path, *, size: PocketSize = TINY, variant: Literal["dev", "schnell", "kontext", "fill"] = "dev", seed: int = 0
) -> Path:
    """Write a model that the library's own pipeline opens with `from_pretrained(folder)`; returns `folder`.

    Inputs of the transformer, shift by number of tokens and class of the pipeline are those of the published model `variant`. The same
    arguments give the same bytes; the global random state is left as it was.
    """
    row = next(row for row in VARIANTS if row.name == f"flux1-{variant}")
    clip_tokenizer, t5_tokenizer = build_clip_tokenizer(), build_t5_tokenizer()
    with torch.random.fork_rng(devices=[]):
        torch.default_generator.manual_seed(seed)
        transformer = build_transformer(size, has_guidance=row.has_guidance, in_channels=row.in_channels)
        vae = build_vae(size)
        with torch.no_grad():
            vae.encoder.conv_out.weight[:LATENT_CHANNELS] *= _LATENT_GAIN
            vae.encoder.conv_out.weight[LATENT_CHANNELS:] = 0.0
            vae.encoder.conv_out.bias[LATENT_CHANNELS:] = _LOG_VARIANCE
        parts: dict[str, Part] = {
            "transformer": transformer,
            "vae": vae,
            "text_encoder": build_clip(size, clip_tokenizer),
            "text_encoder_2": build_t5(size, num_words=len(t5_tokenizer)),
            "tokenizer": clip_tokenizer,
            "tokenizer_2": t5_tokenizer,
            "scheduler": build_scheduler("dev" if row.is_shifted else "schnell"),
        }
    return write_folder(folder, parts, pipeline=row.pipeline)
