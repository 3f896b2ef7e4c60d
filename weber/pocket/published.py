"""The published models at their real size: configurations for estimates, tests and benchmarks offline.

Sizes: ecosystem.md 1.2; of the encoders, their published config.json.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import torch
from torch import nn

from weber.families.flux1.variants import VARIANTS as FLUX1_VARIANTS
from weber.families.flux2.prompts import RECIPES
from weber.families.flux2.variants import VARIANTS as FLUX2_VARIANTS
from weber.families.flux3.prompts import STATES
from weber.families.flux3.variants import VARIANTS as FLUX3_VARIANTS

Config = dict[str, Any]

TEXT_WIDTH = "joint_attention_dim"
"""What a transformer's configuration says of the width of its texts."""

_FLUX1: Config = {
    "_class_name": "FluxTransformer2DModel",
    "patch_size": 1,
    "in_channels": 64,
    "out_channels": 64,
    "num_layers": 19,
    "num_single_layers": 38,
    "attention_head_dim": 128,
    "num_attention_heads": 24,
    "joint_attention_dim": 4096,
    "pooled_projection_dim": 768,
    "guidance_embeds": True,
    "axes_dims_rope": [16, 56, 56],
}
_FLUX2: Config = {
    "_class_name": "Flux2Transformer2DModel",
    "patch_size": 1,
    "in_channels": 128,
    "num_layers": 8,
    "num_single_layers": 48,
    "attention_head_dim": 128,
    "num_attention_heads": 48,
    "joint_attention_dim": 15360,
    "timestep_guidance_channels": 256,
    "mlp_ratio": 3.0,
    "axes_dims_rope": [32, 32, 32, 32],
    "rope_theta": 2000,
    "guidance_embeds": True,
}
_KLEIN_4B = {
    **_FLUX2,
    "num_layers": 5,
    "num_single_layers": 20,
    "num_attention_heads": 24,
    "joint_attention_dim": 7680,
    "guidance_embeds": False,
}
_KLEIN_9B = {**_KLEIN_4B, "num_layers": 8, "num_single_layers": 24, "num_attention_heads": 32, "joint_attention_dim": 12288}
_FLUX3: Config = {
    "_class_name": "Flux3Transformer2DModel",
    "in_channels": 128,
    "cond_in_channels": 128,
    "num_layers": 5,
    "num_single_layers": 28,
    "attention_head_dim": 128,
    "num_attention_heads": 24,
    "joint_attention_dim": 20480,
    "axes_dims_rope": [32, 32, 32, 32],
    "rope_theta": 10000,
    "flow_map": False,
}

LARGE_AND_SMALL = ("flux1-dev", "flux2-klein-base-4b")
"""What is measured if nothing else is said."""

TRANSFORMERS: dict[str, Config] = {
    **{
        row.name: {**_FLUX1, "in_channels": row.in_channels, "guidance_embeds": row.has_guidance}
        for row in FLUX1_VARIANTS
        if row.name != "pocket"
    },
    **{
        row.name: _FLUX2 if row.has_guidance else {7680: _KLEIN_4B, 12288: _KLEIN_9B}[row.text_width] for row in FLUX2_VARIANTS
    },
    **{row.name: _FLUX3 for row in FLUX3_VARIANTS},
}
"""The library's configuration of the transformer of every variant that is published."""

_VAE: Config = {
    "in_channels": 3,
    "out_channels": 3,
    "down_block_types": ["DownEncoderBlock2D"] * 4,
    "up_block_types": ["UpDecoderBlock2D"] * 4,
    "block_out_channels": [128, 256, 512, 512],
    "layers_per_block": 2,
    "norm_num_groups": 32,
}
_FLUX1_VAE = {
    **_VAE,
    "_class_name": "AutoencoderKL",
    "latent_channels": 16,
    "scaling_factor": 0.3611,
    "shift_factor": 0.1159,
    "use_quant_conv": False,
    "use_post_quant_conv": False,
}
_FLUX2_VAE = {**_VAE, "_class_name": "AutoencoderKLFlux2", "latent_channels": 32}

_CLIP: Config = {
    "model_type": "clip_text_model",
    "vocab_size": 49408,
    "hidden_size": 768,
    "intermediate_size": 3072,
    "projection_dim": 768,
    "num_hidden_layers": 12,
    "num_attention_heads": 12,
    "max_position_embeddings": 77,
    "hidden_act": "quick_gelu",
}
_T5: Config = {
    "model_type": "t5",
    "vocab_size": 32128,
    "d_model": 4096,
    "d_kv": 64,
    "d_ff": 10240,
    "num_layers": 24,
    "num_heads": 64,
    "feed_forward_proj": "gated-gelu",
    "tie_word_embeddings": False,
}
_LANGUAGE: Config = {"num_hidden_layers": 36, "num_attention_heads": 32, "num_key_value_heads": 8, "head_dim": 128}
_QWEN_4B: Config = {
    **_LANGUAGE,
    "model_type": "qwen3",
    "vocab_size": 151936,
    "hidden_size": 2560,
    "intermediate_size": 9728,
    "tie_word_embeddings": True,
}
_QWEN_8B = {**_QWEN_4B, "hidden_size": 4096, "intermediate_size": 12288, "tie_word_embeddings": False}
_MISTRAL: Config = {
    "model_type": "mistral3",
    "text_config": {
        **_LANGUAGE,
        "model_type": "mistral",
        "vocab_size": 131072,
        "hidden_size": 5120,
        "intermediate_size": 32768,
        "num_hidden_layers": 40,
        "sliding_window": None,
    },
}
_QWEN_VL: Config = {
    "model_type": "qwen3_vl",
    "text_config": {
        **_QWEN_4B,
        "model_type": "qwen3_vl_text",
        "rope_parameters": {"rope_type": "default", "rope_theta": 5e6, "mrope_interleaved": True, "mrope_section": [24, 20, 20]},
    },
}

KLEINS = frozenset(row.name for row in FLUX2_VARIANTS if not row.has_guidance)


@dataclass(frozen=True)
class Encoders:
    """The configurations of a variant's autoencoder and, by their folders and in order, of its text encoders."""

    vae: Config
    texts: Mapping[str, Config]


def list_encoders(variant: str) -> Encoders:
    """Of a variant that is published."""
    if any(row.name == variant for row in FLUX1_VARIANTS):
        return Encoders(_FLUX1_VAE, {"text_encoder": _CLIP, "text_encoder_2": _T5})
    if variant in KLEINS:
        return Encoders(_FLUX2_VAE, {"text_encoder": _QWEN_4B if TRANSFORMERS[variant] is _KLEIN_4B else _QWEN_8B})
    return Encoders(_FLUX2_VAE, {"text_encoder": _MISTRAL if variant == FLUX2_VARIANTS[0].name else _QWEN_VL})


def build_encoders(variant: str, transformer_config: Mapping[str, object]) -> dict[str, nn.Module]:
    """The encoders of a published model on the meta device, by the names of their parts in a `Family`, without tokenizers.

    Of language models there are as many layers as are read. Empty for a model that is told texts of another width than the published one.
    """
    published = TRANSFORMERS.get(variant)
    if published is None or transformer_config.get(TEXT_WIDTH, published[TEXT_WIDTH]) != published[TEXT_WIDTH]:
        return {}
    parts = list_encoders(variant)
    with torch.device("meta"):
        vae = _build_vae(parts.vae)
        encoders = [_build_text_encoder(config) for config in parts.texts.values()]
    return {"vae": vae.eval(), **{name: encoder.eval() for name, encoder in encoders}}


def _build_vae(config: Config) -> nn.Module:
    import diffusers

    vae: nn.Module = getattr(diffusers, config["_class_name"]).from_config(config)
    return vae


def _build_text_encoder(config: Config) -> tuple[str, nn.Module]:
    """The name of the part, and the module that is run."""
    text = config.get("text_config", config)
    match config["model_type"]:
        case "clip_text_model":
            return "clip", _build_text_model("CLIPText", config)
        case "t5":
            return "t5", _build_text_model("T5", config, kind="T5EncoderModel")
        case "mistral3":
            return "mistral", _build_text_model("Mistral", {**text, "num_hidden_layers": RECIPES["mistral"].states[-1] + 1})
        case "qwen3":
            return "qwen", _build_text_model("Qwen3", {**text, "num_hidden_layers": RECIPES["qwen"].states[-1] + 1})
    return "qwen", _build_text_model("Qwen3VLText", {**text, "num_hidden_layers": STATES[-1] + 1})


def _build_text_model(name: str, config: Config, *, kind: str | None = None) -> nn.Module:
    """Of the classes that are called so in transformers."""
    import transformers

    settings = getattr(transformers, f"{name}Config").from_dict(config)
    model: nn.Module = getattr(transformers, kind or f"{name}Model")(settings)
    return model
