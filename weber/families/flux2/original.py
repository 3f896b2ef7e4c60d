"""The parts of FLUX.2 in single files, as the makers and ComfyUI have them: `flux2-dev`, `flux-2-klein-4b`, `flux2-vae`,
`mistral_3_small_flux2_bf16`, `qwen_3_4b`, `qwen_3_8b`.

Configurations are built from shapes; what shapes do not say is as published (ecosystem.md 1.2, 1.4; ComfyUI text_encoders/llama.py).
"""

from __future__ import annotations

import re
from functools import partial
from typing import Any

import torch

from weber.families.autoencoders import build_vae_config, convert_vae
from weber.families.flux2.keys import PAIRINGS
from weber.families.pairing import read_num_layers
from weber.families.singles import LANGUAGE_MARKERS, VAE_MARKERS, keep_known
from weber.families.streams import build_stream_config, build_transformer_original
from weber.families.tensors import Entry, Weights
from weber.families.weights import Original

_NUM_POSITION_AXES = 4
_LIBRARY_MARK = "double_stream_modulation_img.linear.weight"
_CUT_LAYERS = 30
_HEAD_WIDTH = 128
_QUERY_NORM = "layers.0.self_attn.q_norm.weight"
_KNOWN = re.compile(r"(embed_tokens|norm|layers\.\d+\.(self_attn|mlp|input_layernorm|post_attention_layernorm)(\..+)?)\.weight")
_EXTRAS = ("*lm_head.*", "*vision_tower.*", "*multi_modal_projector.*", "*visual.*", "*tekken_model", "*rotary_emb.inv_freq")


def is_flux2(weights: Weights) -> bool:
    """Whether a single file, its prefixes stripped, holds a transformer of this family."""
    makers = {"img_in.weight", "double_stream_modulation_img.lin.weight", "final_layer.linear.weight"}
    return makers <= set(weights) or {"x_embedder.weight", "proj_out.weight", _LIBRARY_MARK} <= set(weights)


def _build_transformer_config(originals: Weights) -> dict[str, Any]:
    config = build_stream_config(originals)
    return config | {
        "timestep_guidance_channels": originals["time_in.in_layer.weight"].shape[1],
        "mlp_ratio": originals["double_blocks.0.img_mlp.2.weight"].shape[1] / originals["img_in.weight"].shape[0],
        "axes_dims_rope": [config["attention_head_dim"] // _NUM_POSITION_AXES] * _NUM_POSITION_AXES,
    }


def _is_vae(weights: Weights) -> bool:
    return {"encoder.conv_in.weight", "decoder.conv_in.weight", "bn.running_mean", "bn.running_var"} <= set(weights)


def _build_vae_config(weights: Weights) -> dict[str, Any]:
    config = build_vae_config(weights)
    converted, _ = convert_vae(weights)
    decoder: list[int] = []
    while (name := f"decoder.up_blocks.{len(decoder)}.resnets.0.conv1.weight") in converted:
        decoder.append(converted[name].shape[0])
    is_smaller = decoder[::-1] != config["block_out_channels"]
    return config | {"batch_norm_eps": 1e-4} | ({"decoder_block_out_channels": decoder[::-1]} if is_smaller else {})


def _build_language_config(weights: Weights) -> dict[str, Any]:
    """The settings that `MistralConfig` and `Qwen3Config` have in common."""
    num_tokens, width = weights["embed_tokens.weight"].shape
    queries, keys = (weights[f"layers.0.self_attn.{name}_proj.weight"].shape[0] for name in ("q", "k"))
    head_width = weights[_QUERY_NORM].shape[0] if _QUERY_NORM in weights else min(_HEAD_WIDTH, keys)
    return {
        "vocab_size": num_tokens,
        "hidden_size": width,
        "intermediate_size": weights["layers.0.mlp.gate_proj.weight"].shape[0],
        "num_hidden_layers": read_num_layers(weights, "layers."),
        "num_attention_heads": queries // head_width,
        "num_key_value_heads": keys // head_width,
        "head_dim": head_width,
        "hidden_act": "silu",
    }


def _build_mistral_config(weights: Weights) -> dict[str, Any]:
    config = _build_language_config(_add_cut_layer(weights))
    rope = {"rope_theta": 1_000_000_000.0, "rope_type": "default"}
    published = {"model_type": "mistral", "rms_norm_eps": 1e-5, "sliding_window": None, "max_position_embeddings": 131072}
    return config | published | {"rope_parameters": rope}


def _build_qwen_config(weights: Weights) -> dict[str, Any]:
    rope = {"rope_theta": 1_000_000.0, "rope_type": "default"}
    published = {"model_type": "qwen3", "rms_norm_eps": 1e-6, "max_position_embeddings": 40960}
    return _build_language_config(weights) | published | {"rope_parameters": rope}


def _keep_mistral(weights: Weights) -> tuple[Weights, list[str]]:
    return keep_known(_add_cut_layer(weights), known=_KNOWN)


def _add_cut_layer(weights: Weights) -> Weights:
    """ComfyUI's Mistral ends at the last state that is read, which the final norm must not touch: one layer of zeros, which passes its
    input on, stands for those that were cut off."""
    if read_num_layers(weights, "layers.") != _CUT_LAYERS:
        return weights
    last, added = f"layers.{_CUT_LAYERS - 1}.", f"layers.{_CUT_LAYERS}."
    zeros = {name.replace(last, added, 1): _build_zeros(entry) for name, entry in weights.items() if name.startswith(last)}
    return {**weights, **zeros}


def _build_zeros(entry: Entry) -> Entry:
    return Entry(entry.shape, entry.dtype, lambda: torch.zeros(entry.shape, dtype=entry.dtype))


def _is_language(weights: Weights) -> bool:
    return {"embed_tokens.weight", *LANGUAGE_MARKERS} <= set(weights)


TRANSFORMER = build_transformer_original(
    _build_transformer_config,
    PAIRINGS,
    library_mark=_LIBRARY_MARK,
    name="a FLUX.2 transformer",
    kind="Flux2Transformer2DModel",
    recognize=is_flux2,
)
VAE = Original(
    _build_vae_config,
    convert_vae,
    name="an autoencoder of FLUX.2",
    kinds=("AutoencoderKLFlux2",),
    markers=VAE_MARKERS,
    recognize=_is_vae,
)
MISTRAL = Original(
    _build_mistral_config,
    _keep_mistral,
    name="a Mistral Small 3 text encoder",
    kinds=("mistral3", "mistral"),
    markers=LANGUAGE_MARKERS,
    recognize=lambda weights: _is_language(weights) and _QUERY_NORM not in weights,
    extras=_EXTRAS,
)
QWEN = Original(
    _build_qwen_config,
    partial(keep_known, known=_KNOWN),
    name="a Qwen3 text encoder",
    kinds=("qwen3",),
    markers=LANGUAGE_MARKERS,
    recognize=lambda weights: _is_language(weights) and _QUERY_NORM in weights,
    extras=_EXTRAS,
)
