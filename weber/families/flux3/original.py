"""The transformer of FLUX.3 in a single file of its makers, and its text encoder in the library's folder.

What shapes do not say is as published (ecosystem.md 1.2).
"""

from __future__ import annotations

from functools import partial

from weber.families.flux3.keys import PAIRINGS
from weber.families.pairing import build_converted, build_original_weights, read_num_layers
from weber.families.singles import LANGUAGE_MARKERS
from weber.families.tensors import Weights
from weber.families.weights import Original

_MARK, _LIBRARY_MARK = (f"early_stream_modulations.image.{name}.weight" for name in ("lin", "linear"))
_TRAINING_ONLY = "repa_projectors.*"
_NUM_POSITION_AXES = 4
_LANGUAGE_MODEL = ("embed_tokens.", "layers.", "norm.")


def is_flux3(weights: Weights) -> bool:
    """Whether a single file, its prefixes stripped, holds a transformer of this family."""
    return _MARK in weights or _LIBRARY_MARK in weights


def _build_transformer_config(weights: Weights) -> dict[str, object]:
    originals = build_original_weights(weights, PAIRINGS) if _LIBRARY_MARK in weights else weights
    width, in_channels = originals["emb_in.image.weight"].shape
    query_norm = next(name for name in originals if name.startswith("single_blocks.0.norm.query_norm."))
    head_width = originals[query_norm].shape[0]
    return {
        "in_channels": in_channels,
        "cond_in_channels": originals["emb_in.image_cond.weight"].shape[1],
        "num_layers": read_num_layers(originals, "txt_mode_blocks."),
        "num_single_layers": read_num_layers(originals, "single_blocks."),
        "attention_head_dim": head_width,
        "num_attention_heads": width // head_width,
        "joint_attention_dim": originals["txt_in.weight"].shape[1],
        "timestep_channels": originals["time_in.in_layer.weight"].shape[1],
        "mlp_ratio": originals["single_blocks.0.mlp_out.weight"].shape[1] / width,
        "axes_dims_rope": [head_width // _NUM_POSITION_AXES] * _NUM_POSITION_AXES,
        "flow_map": "ref_time_in.in_layer.weight" in originals,
    }


def _pick_language_model(weights: Weights) -> tuple[Weights, list[str]]:
    """Without the vision tower and the head."""
    picked = {name: entry for name, entry in weights.items() if name.startswith(_LANGUAGE_MODEL)}
    return picked, [name for name in weights if name not in picked]


TRANSFORMER = Original(
    _build_transformer_config,
    partial(build_converted, pairings=PAIRINGS, library_mark=_LIBRARY_MARK),
    name="a FLUX.3 transformer",
    kinds=("Flux3Transformer2DModel",),
    markers=("emb_in.image.weight", "x_embedders.image.weight"),
    recognize=is_flux3,
    extras=(_TRAINING_ONLY,),
)
QWEN = Original(
    lambda weights: {},  # stands in the folder's config.json
    _pick_language_model,
    name="a Qwen3-VL text encoder",
    kinds=("qwen3_vl", "qwen3_vl_text"),
    markers=LANGUAGE_MARKERS,
    recognize=lambda weights: set(LANGUAGE_MARKERS) <= set(weights),
    extras=("*visual.*", "*lm_head.*"),
)
