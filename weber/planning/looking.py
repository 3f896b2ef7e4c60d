"""What only looks at painted pictures, previews and scores: can it, with this model?"""

from __future__ import annotations

import torch

from weber.config.output import SamplingConfig
from weber.errors import ModelError
from weber.families.family import Family
from weber.families.tiny import load_tiny
from weber.sampling.scorers import find_scorer

CLIP_KEY, LIKENESS_KEY = "sampling.clip_model", "sampling.likeness_model"
OWN = "vae"
"""The run's own autoencoder, in the place of a model that compares pictures."""


def check_looking(config: SamplingConfig, family: Family) -> None:
    """Raise ModelError where a tiny decoder is of another model, or something cannot score pictures. Of the hub, configurations and tiny
    decoders are fetched."""
    if config.preview_model is not None:
        found, (channels, *_) = load_tiny(config.preview_model).channels, _spread(family)
        if found != channels:
            raise ModelError(
                "sampling.preview_model is the tiny decoder of another model.",
                got=f"{config.preview_model}, for latents of {found} channels",
                expected=f"one for the {channels} channels of {family.variant}",
                fix="set sampling.preview_model to madebyollin/taef1 for FLUX.1, madebyollin/taef2 for FLUX.2, or remove it",
            )
    if config.clip_model is not None:
        find_scorer(config.clip_model, key=CLIP_KEY, needs_text=True, is_whole=False)
    if config.likeness_model not in (None, OWN):
        find_scorer(str(config.likeness_model), key=LIKENESS_KEY, needs_text=False, is_whole=False)


def _spread(family: Family) -> tuple[int, ...]:
    """The shape of a preview's latents, without the first dimension."""
    edge = family.alignment_pixels
    return tuple(family.spread_latents(torch.empty(1, *family.latent_shape(edge, edge), device="meta")).shape[1:])
