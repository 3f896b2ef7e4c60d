"""The parts of a FLUX.1 of any size, with the weights that their libraries draw."""

from __future__ import annotations

from dataclasses import dataclass

from diffusers import AutoencoderKL, FluxTransformer2DModel
from transformers import CLIPTextConfig, CLIPTextModel, CLIPTokenizer, T5Config, T5EncoderModel

from weber.pocket.words import CLIP_TOKENS

LATENT_CHANNELS = 16


@dataclass(frozen=True)
class PocketSize:
    """How big each part is. `rope_axes` (frame, row, column) add up to `head_width`; `text_width` is that of both text encoders."""

    num_double_blocks: int
    num_single_blocks: int
    num_heads: int
    head_width: int
    rope_axes: tuple[int, int, int]
    text_width: int
    num_text_heads: int
    vae_channels: tuple[int, int, int, int]
    vae_groups: int


TINY = PocketSize(1, 2, 2, 16, (4, 6, 6), 32, 2, (8, 8, 8, 8), 4)
"""For unit tests: everything in milliseconds."""

TRAINED = PocketSize(2, 6, 6, 32, (8, 12, 12), 128, 4, (16, 32, 64, 128), 8)
"""The model that comes with weber: 6.4 million parameters (2.8 million in the autoencoder, 2.0 million in the text encoders)."""


def build_transformer(size: PocketSize, *, has_guidance: bool, in_channels: int = 4 * LATENT_CHANNELS) -> FluxTransformer2DModel:
    """The network that is trained on; takes packed latents of 64 channels, and beside them what else `in_channels` counts."""
    return FluxTransformer2DModel(
        in_channels=in_channels,
        out_channels=None if in_channels == 4 * LATENT_CHANNELS else 4 * LATENT_CHANNELS,
        num_layers=size.num_double_blocks,
        num_single_layers=size.num_single_blocks,
        attention_head_dim=size.head_width,
        num_attention_heads=size.num_heads,
        joint_attention_dim=size.text_width,
        pooled_projection_dim=size.text_width,
        guidance_embeds=has_guidance,
        axes_dims_rope=size.rope_axes,
    )


def build_vae(size: PocketSize) -> AutoencoderKL:
    """The autoencoder; shift and scale are those of the published one."""
    return AutoencoderKL(
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


def build_clip(size: PocketSize, tokenizer: CLIPTokenizer) -> CLIPTextModel:
    """The encoder whose pooled state is read."""
    config = CLIPTextConfig(
        vocab_size=len(tokenizer),
        hidden_size=size.text_width,
        intermediate_size=2 * size.text_width,
        projection_dim=size.text_width,
        num_hidden_layers=2,
        num_attention_heads=size.num_text_heads,
        max_position_embeddings=CLIP_TOKENS,
        bos_token_id=tokenizer.bos_token_id,
        eos_token_id=tokenizer.eos_token_id,
        pad_token_id=tokenizer.pad_token_id,
    )
    return CLIPTextModel(config)


def build_t5(size: PocketSize, *, num_words: int) -> T5EncoderModel:
    """The encoder of which every token's state is read; without dropout."""
    config = T5Config(
        vocab_size=num_words,
        d_model=size.text_width,
        d_kv=size.text_width // size.num_text_heads,
        d_ff=2 * size.text_width,
        num_layers=2,
        num_heads=size.num_text_heads,
        feed_forward_proj="gated-gelu",
        dropout_rate=0.0,
    )
    return T5EncoderModel(config)
