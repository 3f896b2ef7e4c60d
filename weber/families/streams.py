"""Transformers as their makers keep them (`flux1-dev.safetensors`), beside the library's names: what the families have in common."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from functools import partial
from typing import Any

from weber.families.pairing import Pairing, build_converted, build_original_weights, read_num_layers
from weber.families.singles import TRANSFORMER_MARKERS
from weber.families.tensors import Weights
from weber.families.weights import Original


def build_transformer_original(
    build_config: Callable[[Weights], dict[str, Any]],
    pairings: Sequence[Pairing],
    *,
    library_mark: str,
    name: str,
    kind: str,
    recognize: Callable[[Weights], bool],
    markers: tuple[str, ...] = TRANSFORMER_MARKERS,
    extras: tuple[str, ...] = (),
) -> Original:
    """The transformer of a family, whose file may have the library's names already: then it has the tensor `library_mark`.

    `build_config` gets the tensors under the makers' names; the others: see `Original`.
    """

    def build(weights: Weights) -> dict[str, Any]:
        return build_config(build_original_weights(weights, pairings) if library_mark in weights else weights)

    convert = partial(build_converted, pairings=pairings, library_mark=library_mark)
    return Original(build, convert, name=name, kinds=(kind,), markers=markers, recognize=recognize, extras=extras)


def build_stream_config(originals: Weights) -> dict[str, Any]:
    """The settings that the library's `FluxTransformer2DModel` and `Flux2Transformer2DModel` have in common."""
    width, in_channels = originals["img_in.weight"].shape
    head_width = read_head_width(originals, "double_blocks.0.img_attn")
    return {
        "patch_size": 1,
        "in_channels": in_channels,
        "out_channels": originals["final_layer.linear.weight"].shape[0],
        "num_layers": read_num_layers(originals, "double_blocks."),
        "num_single_layers": read_num_layers(originals, "single_blocks."),
        "attention_head_dim": head_width,
        "num_attention_heads": width // head_width,
        "joint_attention_dim": originals["txt_in.weight"].shape[1],
        "guidance_embeds": "guidance_in.in_layer.weight" in originals,
    }


def read_head_width(originals: Weights, attention: str) -> int:
    """Of one of the makers' layers of attention, by its norm of queries."""
    (width,) = next(entry.shape for name, entry in originals.items() if name.startswith(f"{attention}.norm.query_norm."))
    return width
