"""A small FLUX.1 with random weights in diffusers layout: made offline in a second from the library's own classes."""

from __future__ import annotations

from pathlib import Path
from typing import Literal

import torch

from weber.pocket.folder import Part, build_scheduler, write_folder
from weber.pocket.networks import LATENT_CHANNELS, TINY, PocketSize, build_clip, build_t5, build_transformer, build_vae
from weber.pocket.words import build_clip_tokenizer, build_t5_tokenizer

_LATENT_GAIN = 8.0  # the library's initial weights give latents of a 1/8 of the standard deviation that a trained encoder's have


def build_random_model(folder: Path, *, size: PocketSize = TINY, variant: Literal["dev", "schnell"] = "dev", seed: int = 0) -> Path:
    """Write a model that `FluxPipeline.from_pretrained(folder)` opens; returns `folder`.

    `dev` has a guidance input and the shift by number of tokens, `schnell` neither, as the published models. The same arguments give
    the same bytes; the global random state is left as it was.
    """
    clip_tokenizer, t5_tokenizer = build_clip_tokenizer(), build_t5_tokenizer()
    with torch.random.fork_rng(devices=[]):
        torch.default_generator.manual_seed(seed)
        transformer = build_transformer(size, has_guidance=variant == "dev")
        vae = build_vae(size)
        with torch.no_grad():
            vae.encoder.conv_out.weight[:LATENT_CHANNELS] *= _LATENT_GAIN
        parts: dict[str, Part] = {
            "transformer": transformer,
            "vae": vae,
            "text_encoder": build_clip(size, clip_tokenizer),
            "text_encoder_2": build_t5(size, num_words=len(t5_tokenizer)),
            "tokenizer": clip_tokenizer,
            "tokenizer_2": t5_tokenizer,
            "scheduler": build_scheduler(variant),
        }
    return write_folder(folder, parts)
