"""A small FLUX.3 with random weights in diffusers layout: made offline in seconds from the library's own classes."""

from __future__ import annotations

from pathlib import Path

import torch
from diffusers import AutoencoderKLFlux2, Flux3Transformer2DModel
from torch.nn import functional
from transformers import Qwen3VLConfig, Qwen3VLForConditionalGeneration

from weber.pocket.folder import Part
from weber.pocket.random_flux2 import build_qwen_tokenizer

_LATENT_CHANNELS = 32
_WIDTH, _HEADS, _NUM_LAYERS = 16, 2, 36  # of the text encoder; as many layers as the published one, of which eight are read
_STATES = 8


def build_random_flux3(folder: Path, *, is_flow_map: bool = False, seed: int = 0) -> Path:
    """Write the parts of a model; returns `folder`. The library's modular pipeline needs no more than parts.

    The same arguments give the same bytes; the global random state is left as it was.
    """
    tokenizer = build_qwen_tokenizer()
    with torch.random.fork_rng(devices=[]):
        torch.default_generator.manual_seed(seed)
        parts: dict[str, Part] = {
            "transformer": _build_transformer(is_flow_map=is_flow_map),
            "vae": _build_vae(),
            "text_encoder": _build_text_encoder(num_words=len(tokenizer)),
            "tokenizer": tokenizer,
        }
    for name, part in parts.items():
        part.save_pretrained(folder / name)
    return folder


def _build_transformer(*, is_flow_map: bool) -> Flux3Transformer2DModel:
    return Flux3Transformer2DModel(
        in_channels=4 * _LATENT_CHANNELS,
        cond_in_channels=4 * _LATENT_CHANNELS,
        num_layers=1,
        num_single_layers=2,
        attention_head_dim=16,
        num_attention_heads=2,
        joint_attention_dim=_STATES * _WIDTH,
        timestep_channels=32,
        axes_dims_rope=(4, 4, 4, 4),
        flow_map=is_flow_map,
    )


def _build_vae() -> AutoencoderKLFlux2:
    """The autoencoder, with the statistics of its own latents of noise."""
    vae = AutoencoderKLFlux2(block_out_channels=(8, 8, 8, 8), layers_per_block=1, norm_num_groups=4, latent_channels=_LATENT_CHANNELS)
    with torch.no_grad():
        latents = functional.pixel_unshuffle(vae.eval().encode(2 * torch.rand(4, 3, 64, 64) - 1).latent_dist.mode(), 2)
        vae.bn.running_mean.copy_(latents.mean(dim=(0, 2, 3)))
        vae.bn.running_var.copy_(latents.var(dim=(0, 2, 3)))
    return vae


def _build_text_encoder(*, num_words: int) -> Qwen3VLForConditionalGeneration:
    """Whole, as it is published: with a vision tower and a head, which are not read."""
    head_width = _WIDTH // _HEADS
    text = {
        "vocab_size": num_words,
        "hidden_size": _WIDTH,
        "intermediate_size": 2 * _WIDTH,
        "num_hidden_layers": _NUM_LAYERS,
        "num_attention_heads": _HEADS,
        "num_key_value_heads": 1,
        "head_dim": head_width,
        "initializer_range": 0.3,
        "rope_parameters": {
            "rope_type": "default",
            "rope_theta": 5e6,
            "mrope_interleaved": True,
            "mrope_section": [head_width // 2 - 2, 1, 1],
        },
    }
    vision = {
        "depth": 1,
        "hidden_size": _WIDTH,
        "intermediate_size": _WIDTH,
        "num_heads": _HEADS,
        "out_hidden_size": _WIDTH,
        "num_position_embeddings": 16,
        "deepstack_visual_indexes": [0],
    }
    return Qwen3VLForConditionalGeneration(Qwen3VLConfig(text_config=text, vision_config=vision, tie_word_embeddings=True))
