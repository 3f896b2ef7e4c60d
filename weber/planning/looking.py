"""What only looks at painted pictures, previews and scores: can it, with this model?"""

from __future__ import annotations

from weber.config.output import SamplingConfig
from weber.errors import ModelError
from weber.families.family import Family
from weber.families.tiny import load_tiny
from weber.sampling.scorers import find_scorer

_TINY = {16: "madebyollin/taef1", 32: "madebyollin/taef2"}
CLIP_KEY, LIKENESS_KEY = "sampling.clip_model", "sampling.likeness_model"
OWN = "vae"
"""The run's own autoencoder, in the place of a model that compares pictures."""


def check_looking(config: SamplingConfig, family: Family) -> None:
    """Raise ModelError where a tiny decoder is of another model, or something cannot score pictures. Of the hub, configurations and tiny
    decoders are fetched."""
    if config.preview_model is not None:
        edge = family.alignment_pixels
        found, channels = load_tiny(config.preview_model).channels, family.latent_shape(edge, edge)[0] // family.latent_patch**2
        if found != channels:
            fix = f"set sampling.preview_model to {_TINY[channels]}, or" if channels in _TINY else ""
            raise ModelError(
                "sampling.preview_model is the tiny decoder of another model.",
                got=f"{config.preview_model}, for latents of {found} channels",
                expected=f"one for the {channels} channels of {family.variant}",
                fix=f"{fix} remove it".strip(),
            )
    if config.clip_model is not None:
        find_scorer(config.clip_model, key=CLIP_KEY, needs_text=True, is_whole=False)
    if config.likeness_model not in (None, OWN):
        find_scorer(str(config.likeness_model), key=LIKENESS_KEY, needs_text=False, is_whole=False)

