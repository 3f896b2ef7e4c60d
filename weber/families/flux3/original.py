"""The transformer of FLUX.3 in a single file of its makers, and its text encoder in the library's folder.

What shapes do not say is as published (ecosystem.md 1.2).
"""

from __future__ import annotations

import re
from functools import partial
from typing import Any

from weber.families.flux3.keys import PAIRINGS
from weber.families.pairing import read_num_layers
from weber.families.singles import LANGUAGE_MARKERS, keep_known
from weber.families.streams import build_transformer_original, read_head_width
from weber.families.tensors import Weights
from weber.families.weights import Original

_MARK, _LIBRARY_MARK = (f"early_stream_modulations.image.{name}.weight" for name in ("lin", "linear"))
_TRAINING_ONLY = "repa_projectors.*"
_NUM_POSITION_AXES = 4
_LANGUAGE_MODEL = re.compile(r"(embed_tokens|layers|norm)\..*")
"""Without the vision tower and the head."""


def is_flux3(weights: Weights) -> bool:
    """Whether a single file, its prefixes stripped, holds a transformer of this family."""
    return _MARK in weights or _LIBRARY_MARK in weights


def _build_transformer_config(originals: Weights) -> dict[str, Any]:
    width, in_channels = originals["emb_in.image.weight"].shape
    head_width = read_head_width(originals, "single_blocks.0")
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


TRANSFORMER = build_transformer_original(
    _build_transformer_config,
    PAIRINGS,
    library_mark=_LIBRARY_MARK,
    name="a FLUX.3 transformer",
    kind="Flux3Transformer2DModel",
    markers=("emb_in.image.weight", "x_embedders.image.weight"),
    recognize=is_flux3,
    extras=(_TRAINING_ONLY,),
)
QWEN = Original(
    lambda weights: {},  # stands in the folder's config.json
    partial(keep_known, known=_LANGUAGE_MODEL),
    name="a Qwen3-VL text encoder",
    kinds=("qwen3_vl", "qwen3_vl_text"),
    markers=LANGUAGE_MARKERS,
    recognize=lambda weights: set(LANGUAGE_MARKERS) <= set(weights),
    extras=("*visual.*", "*lm_head.*"),
)
