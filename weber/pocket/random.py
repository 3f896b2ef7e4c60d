"""A small FLUX.1 with random weights in diffusers layout: made offline in a second from the library's own classes."""

from __future__ import annotations

import json
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

import diffusers
import torch
from diffusers import AutoencoderKL, FlowMatchEulerDiscreteScheduler, FluxTransformer2DModel
from transformers import CLIPTextConfig, CLIPTextModel, CLIPTokenizer, T5Config, T5EncoderModel, T5Tokenizer

from weber.pocket.words import CLIP_TOKENS, build_clip_tokenizer, build_t5_tokenizer

LATENT_CHANNELS = 16
_LATENT_GAIN = 8.0  # the library's initial weights give latents of a 1/8 of the standard deviation that a trained encoder's have


@dataclass(frozen=True)
class PocketSize:
    """How big each part is. `rope_axes` (frame, row, column) add up to `head_width`; `text_width` is that of both text encoders."""

    num_double_blocks: int
    num_single_blocks: int
    num_heads: int
    head_width: int
    rope_axes: tuple[int, int, int]
    text_width: int
    vae_channels: tuple[int, int, int, int]
    vae_groups: int


TINY = PocketSize(1, 2, 2, 16, (4, 6, 6), 32, (8, 8, 8, 8), 4)
"""For unit tests: everything in milliseconds."""

DEMO = PocketSize(2, 2, 4, 32, (8, 12, 12), 64, (16, 16, 32, 32), 8)
"""For the demo: 1.8 M parameters in the network that is trained."""


def build_random_model(folder: Path, *, size: PocketSize = TINY, variant: Literal["dev", "schnell"] = "dev", seed: int = 0) -> Path:
    """Write a model that `FluxPipeline.from_pretrained(folder)` opens; returns `folder`. `model_index.json` is written last.

    `dev` has a guidance input and the shift by number of tokens, `schnell` neither, as the published models. The same arguments give
    the same bytes; the global random state is left as it was.
    """
    clip_tokenizer, t5_tokenizer = build_clip_tokenizer(), build_t5_tokenizer()
    with torch.random.fork_rng(devices=[]):
        torch.default_generator.manual_seed(seed)
        parts = {
            "transformer": _build_transformer(size, has_guidance=variant == "dev"),
            "vae": _build_vae(size),
            "text_encoder": _build_clip(size, clip_tokenizer),
            "text_encoder_2": _build_t5(size, t5_tokenizer),
            "tokenizer": clip_tokenizer,
            "tokenizer_2": t5_tokenizer,
            "scheduler": _build_scheduler(variant),
        }
    index: dict[str, object] = {"_class_name": "FluxPipeline", "_diffusers_version": diffusers.__version__}
    for name, part in parts.items():
        part.save_pretrained(folder / name)
        index[name] = [type(part).__module__.partition(".")[0], type(part).__name__]
    (folder / "model_index.json").write_text(json.dumps(index, indent=2) + "\n", encoding="utf-8", newline="\n")
    return folder


def _build_transformer(size: PocketSize, *, has_guidance: bool) -> FluxTransformer2DModel:
    return FluxTransformer2DModel(
        in_channels=4 * LATENT_CHANNELS,
        num_layers=size.num_double_blocks,
        num_single_layers=size.num_single_blocks,
        attention_head_dim=size.head_width,
        num_attention_heads=size.num_heads,
        joint_attention_dim=size.text_width,
        pooled_projection_dim=size.text_width,
        guidance_embeds=has_guidance,
        axes_dims_rope=size.rope_axes,
    )


def _build_vae(size: PocketSize) -> AutoencoderKL:
    vae = AutoencoderKL(
        down_block_types=("DownEncoderBlock2D",) * 4,
        up_block_types=("UpDecoderBlock2D",) * 4,
        block_out_channels=size.vae_channels,
        layers_per_block=1,
        norm_num_groups=size.vae_groups,
        latent_channels=LATENT_CHANNELS,
        scaling_factor=0.3611,
        shift_factor=0.1159,
        use_quant_conv=False,
        use_post_quant_conv=False,
    )
    with torch.no_grad():
        vae.encoder.conv_out.weight[:LATENT_CHANNELS] *= _LATENT_GAIN
    return vae


def _build_clip(size: PocketSize, tokenizer: CLIPTokenizer) -> CLIPTextModel:
    config = CLIPTextConfig(
        vocab_size=len(tokenizer),
        hidden_size=size.text_width,
        intermediate_size=2 * size.text_width,
        projection_dim=size.text_width,
        num_hidden_layers=2,
        num_attention_heads=2,
        max_position_embeddings=CLIP_TOKENS,
        bos_token_id=tokenizer.bos_token_id,
        eos_token_id=tokenizer.eos_token_id,
        pad_token_id=tokenizer.pad_token_id,
    )
    return CLIPTextModel(config)


def _build_t5(size: PocketSize, tokenizer: T5Tokenizer) -> T5EncoderModel:
    config = T5Config(
        vocab_size=len(tokenizer),
        d_model=size.text_width,
        d_kv=size.text_width // 2,
        d_ff=2 * size.text_width,
        num_layers=2,
        num_heads=2,
        feed_forward_proj="gated-gelu",
    )
    return T5EncoderModel(config)


def _build_scheduler(variant: str) -> FlowMatchEulerDiscreteScheduler:
    """Settings of the published models' `scheduler_config.json`."""
    return FlowMatchEulerDiscreteScheduler(
        shift=3.0 if variant == "dev" else 1.0,
        use_dynamic_shifting=variant == "dev",
        base_shift=0.5,
        max_shift=1.15,
        base_image_seq_len=256,
        max_image_seq_len=4096,
    )
