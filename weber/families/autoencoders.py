"""Autoencoders as their makers keep them (`ae.safetensors`), beside the library's names: both families have the same networks."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import torch
from torch import Tensor

from weber.families.tensors import Entry, Weights

_RENAMED = {"encoder.quant_conv.": "quant_conv.", "decoder.post_quant_conv.": "post_quant_conv."}
_LIBRARY_MARK = "encoder.down_blocks.0.resnets.0.conv1.weight"


def build_vae_config(weights: Weights) -> dict[str, Any]:
    """The settings of both of the library's classes that shapes say; groups of channels are 32, as published."""
    weights, _ = convert_vae(weights)
    channels: list[int] = []
    while (name := f"encoder.down_blocks.{len(channels)}.resnets.0.conv1.weight") in weights:
        channels.append(weights[name].shape[0])
    num_layers = sum(f"encoder.down_blocks.0.resnets.{number}.conv1.weight" in weights for number in range(16))
    return {
        "in_channels": weights["encoder.conv_in.weight"].shape[1],
        "out_channels": weights["decoder.conv_out.weight"].shape[0],
        "down_block_types": ["DownEncoderBlock2D"] * len(channels),
        "up_block_types": ["UpDecoderBlock2D"] * len(channels),
        "block_out_channels": channels,
        "layers_per_block": num_layers,
        "latent_channels": weights["decoder.conv_in.weight"].shape[1],
        "norm_num_groups": 32,
        "use_quant_conv": "quant_conv.weight" in weights,
        "use_post_quant_conv": "post_quant_conv.weight" in weights,
        "mid_block_add_attention": "encoder.mid_block.attentions.0.to_q.weight" in weights,
    }


def convert_vae(weights: Weights) -> tuple[dict[str, Entry], list[str]]:
    """The tensors under the library's names, by the library's own conversion; and names that it does not know."""
    if _LIBRARY_MARK in weights:
        return {name: _flatten(entry, 2 if ".attentions." in name else 4) for name, entry in weights.items()}, []
    from diffusers.loaders.single_file_utils import convert_ldm_vae_checkpoint

    renamed = {_rename(name): name for name in weights}
    # The library converts tensors: it gets small ones that hold their own number, so that none is read from the disk.
    names = list(renamed)
    tokens = {name: torch.full([1] * len(weights[renamed[name]].shape), number) for number, name in enumerate(names)}
    num_blocks = len({name.split(".")[2] for name in names if name.startswith("encoder.down.")})
    config = {"down_block_types": [""] * num_blocks, "up_block_types": [""] * num_blocks}
    converted: dict[str, Tensor] = convert_ldm_vae_checkpoint(tokens, config)
    converted |= {name: tokens[name] for name in names if name.startswith("bn.")}
    found = {name: (weights[renamed[names[int(token.item())]]], token.ndim) for name, token in converted.items()}
    used = {int(token.item()) for token in converted.values()}
    unknown = [renamed[name] for number, name in enumerate(names) if number not in used]
    return {name: _flatten(entry, num_axes) for name, (entry, num_axes) in found.items()}, unknown


def _rename(name: str) -> str:
    for old, new in _RENAMED.items():
        if name.startswith(old):
            return new + name.removeprefix(old)
    return name


def _flatten(entry: Entry, num_axes: int) -> Entry:
    """Projections of attention are convolutions of one pixel in the makers' files."""
    if len(entry.shape) <= num_axes:
        return entry
    shape = entry.shape[:num_axes]
    return replace(entry, shape=shape, read=lambda: entry.read().reshape(shape))
