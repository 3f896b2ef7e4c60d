"""The parts of FLUX.1 in single files, as the makers and ComfyUI have them: `flux1-dev`, `ae`, `clip_l`, `t5xxl_fp16`.

Configurations are built from shapes; what shapes do not say is as published (ecosystem.md 1.2, 1.4).
"""

from __future__ import annotations

import re
from functools import partial
from typing import Any

from weber.families.autoencoders import build_vae_config, convert_vae
from weber.families.flux1.keys import PAIRINGS
from weber.families.pairing import read_num_layers
from weber.families.singles import CLIP_MARKERS, T5_MARKERS, VAE_MARKERS, keep_known
from weber.families.streams import build_stream_config, build_transformer_original
from weber.families.tensors import Entry, Weights
from weber.families.weights import Original

_LATENT_CHANNELS = 16
_CLIP_HEAD_WIDTH = 64
_LIBRARY_MARK = "transformer_blocks.0.norm1_context.linear.weight"
_CLIP_KNOWN = re.compile(r"(embeddings\.(token|position)_embedding|encoder\.layers\.\d+\..+|final_layer_norm)\.(weight|bias)")
_SHARED, _EMBEDDING = "shared.weight", "encoder.embed_tokens.weight"


def is_flux1(weights: Weights) -> bool:
    """Whether a single file, its prefixes stripped, holds a transformer of this family."""
    makers = {"img_in.weight", "vector_in.in_layer.weight", "double_blocks.0.img_mod.lin.weight", "final_layer.linear.weight"}
    return makers <= set(weights) or {"x_embedder.weight", "proj_out.weight", _LIBRARY_MARK} <= set(weights)


def _build_transformer_config(originals: Weights) -> dict[str, Any]:
    config = build_stream_config(originals)
    head_width = config["attention_head_dim"]
    axis = 2 * (7 * head_width // 32)
    return config | {
        "pooled_projection_dim": originals["vector_in.in_layer.weight"].shape[1],
        "axes_dims_rope": [head_width - 2 * axis, axis, axis],
    }


def _is_vae(weights: Weights) -> bool:
    decoder = weights.get("decoder.conv_in.weight")
    is_whole = "encoder.conv_in.weight" in weights and "bn.running_mean" not in weights
    return is_whole and decoder is not None and decoder.shape[1] == _LATENT_CHANNELS


def _build_vae_config(weights: Weights) -> dict[str, Any]:
    return build_vae_config(weights) | {"scaling_factor": 0.3611, "shift_factor": 0.1159}


def _build_clip_config(weights: Weights) -> dict[str, Any]:
    num_tokens, width = weights["embeddings.token_embedding.weight"].shape
    return {
        "model_type": "clip_text_model",
        "vocab_size": num_tokens,
        "hidden_size": width,
        "intermediate_size": weights["encoder.layers.0.mlp.fc1.weight"].shape[0],
        "projection_dim": width,
        "num_hidden_layers": read_num_layers(weights, "encoder.layers."),
        "num_attention_heads": max(1, width // _CLIP_HEAD_WIDTH),
        "max_position_embeddings": weights["embeddings.position_embedding.weight"].shape[0],
        "hidden_act": "quick_gelu",
        "bos_token_id": 0,
        "eos_token_id": 2,  # as published: the state that is pooled is that of the largest token
        "pad_token_id": 1,
    }


def _build_t5_config(weights: Weights) -> dict[str, Any]:
    embedding = weights.get(_SHARED) or weights[_EMBEDDING]
    attention, feed_forward = "encoder.block.0.layer.0.SelfAttention.", "encoder.block.0.layer.1.DenseReluDense."
    num_buckets, num_heads = weights[f"{attention}relative_attention_bias.weight"].shape
    is_gated = f"{feed_forward}wi_0.weight" in weights
    return {
        "model_type": "t5",
        "vocab_size": embedding.shape[0],
        "d_model": embedding.shape[1],
        "d_kv": weights[f"{attention}q.weight"].shape[0] // num_heads,
        "d_ff": weights[f"{feed_forward}wo.weight"].shape[1],
        "num_layers": read_num_layers(weights, "encoder.block."),
        "num_heads": num_heads,
        "relative_attention_num_buckets": num_buckets,
        "feed_forward_proj": "gated-gelu" if is_gated else "relu",
        "tie_word_embeddings": False,
    }


def _convert_t5(weights: Weights) -> tuple[Weights, list[str]]:
    embedding = weights.get(_SHARED) or weights.get(_EMBEDDING)
    known: dict[str, Entry] = {} if embedding is None else {_SHARED: embedding}
    known |= {name: entry for name, entry in weights.items() if name.startswith("encoder.") and name != _EMBEDDING}
    return known, [name for name in weights if name not in known and name != _EMBEDDING]


TRANSFORMER = build_transformer_original(
    _build_transformer_config,
    PAIRINGS,
    library_mark=_LIBRARY_MARK,
    name="a FLUX.1 transformer",
    kind="FluxTransformer2DModel",
    recognize=is_flux1,
)
VAE = Original(
    _build_vae_config,
    convert_vae,
    name="an autoencoder of FLUX.1 (16 channels)",
    kinds=("AutoencoderKL",),
    markers=VAE_MARKERS,
    recognize=_is_vae,
)
CLIP = Original(
    _build_clip_config,
    partial(keep_known, known=_CLIP_KNOWN),
    name="a CLIP-L text encoder",
    kinds=("clip_text_model", "clip"),
    markers=CLIP_MARKERS,
    recognize=lambda weights: {"embeddings.token_embedding.weight", "encoder.layers.0.mlp.fc1.weight"} <= set(weights),
    extras=("embeddings.position_ids", "*position_ids", "*text_projection*", "*logit_scale", "visual_projection.*", "vision_model.*"),
)
T5 = Original(
    _build_t5_config,
    _convert_t5,
    name="a T5 text encoder",
    kinds=("t5",),
    markers=("shared.weight", *T5_MARKERS),
    recognize=lambda weights: T5_MARKERS[0] in weights,
    extras=("decoder.*", "lm_head.weight", "*spiece_model", "*logit_scale"),
)
