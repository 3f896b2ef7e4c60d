"""What ComfyUI makes of an adapter file for these models, written down as a table, so that files are checked without it.

From `comfy/lora.py`, `comfy/utils.py:flux_to_diffusers` and `comfy/weight_adapter` of ComfyUI 0.33 (of 0.29 they are the same); for FLUX.2
the names of feed-forward layers are there since 0.11. It reads no header. Weights have the makers' names and rows; a layer of the library
is some rows of them. A bias (`diff_b`) is added only where a name means a whole layer, with its rows as they are.
"""

from __future__ import annotations

import math
import re
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from pathlib import Path

import torch
from safetensors.torch import load_file
from torch import Tensor

from weber.adapters.lycoris_forms import build_delta

_STREAMS = {
    **{f"attn.to_{name}": ("img_attn.qkv", number, 1) for number, name in enumerate("qkv")},
    **{f"attn.add_{name}_proj": ("txt_attn.qkv", number, 1) for number, name in enumerate("qkv")},
    **dict.fromkeys(("attn.to_out.0",), ("img_attn.proj", 0, 0)),
    **dict.fromkeys(("attn.to_add_out",), ("txt_attn.proj", 0, 0)),
    **dict.fromkeys(("norm1.linear",), ("img_mod.lin", 0, 0)),
    **dict.fromkeys(("norm1_context.linear",), ("txt_mod.lin", 0, 0)),
    **dict.fromkeys(("ff.net.0.proj", "ff.linear_in"), ("img_mlp.0", 0, 0)),
    **dict.fromkeys(("ff.net.2", "ff.linear_out"), ("img_mlp.2", 0, 0)),
    **dict.fromkeys(("ff_context.net.0.proj", "ff_context.linear_in"), ("txt_mlp.0", 0, 0)),
    **dict.fromkeys(("ff_context.net.2", "ff_context.linear_out"), ("txt_mlp.2", 0, 0)),
}
_SINGLE = {
    **{f"attn.to_{name}": ("linear1", number, 1) for number, name in enumerate("qkv")},
    "proj_mlp": ("linear1", 3, 4),
    "norm.linear": ("modulation.lin", 0, 0),
    **dict.fromkeys(("proj_out", "attn.to_out"), ("linear2", 0, 0)),
    "attn.to_qkv_mlp_proj": ("linear1", 0, 0),
}
_OUTSIDE = {
    "proj_out": "final_layer.linear",
    "norm_out.linear": "final_layer.adaLN_modulation.1",
    "x_embedder": "img_in",
    "context_embedder": "txt_in",
    **{
        f"time_text_embed.{library}.linear_{number}": f"{original}.{layer}_layer"
        for library, original in (("timestep_embedder", "time_in"), ("text_embedder", "vector_in"), ("guidance_embedder", "guidance_in"))
        for number, layer in ((1, "in"), (2, "out"))
    },
}
"""Library's name -> the makers'; in blocks with the first of the rows and how many, in widths of the model; 0: the whole layer. What is
not here ComfyUI does not know by the library's name."""

_FORMS = {
    "lora": ("lora_up", "lora_down"),
    "loha": ("hada_w1_a", "hada_w1_b", "hada_w2_a", "hada_w2_b"),
    "lokr": ("lokr_w1", "lokr_w1_a", "lokr_w1_b", "lokr_w2", "lokr_w2_a", "lokr_w2_b"),
    "glora": ("a1", "a2", "b1", "b2"),
    "turns": ("oft_blocks", "rescale"),
    "full": ("diff",),
}
_RANKS = ("lora_down", "hada_w1_b", "lokr_w2_b", "lokr_w1_b", "a2")


@dataclass(frozen=True)
class _Place:
    """Where a name in a file leads: a layer's whole weight, some of its rows, or with its halves swapped."""

    original: str
    rows: tuple[int, int] | None = None
    swapped: bool = False


def read_file(path: Path, originals: Mapping[str, Tensor]) -> tuple[dict[str, Tensor], list[str]]:
    """The weights (under the makers' names) with a file in them, at strength 1; and the tensors of the file that are not loaded."""
    tensors, weights = load_file(path), {name: tensor.float().clone() for name, tensor in originals.items()}
    layers: dict[str, dict[str, Tensor]] = {}
    for name, tensor in tensors.items():
        stem, _, part = name.removesuffix(".weight").rpartition(".")
        layers.setdefault(stem, {})[{"lora_A": "lora_down", "lora_B": "lora_up"}.get(part, part)] = tensor
    places = _list_places(originals)
    lost = []
    for stem, parts in layers.items():
        if stem not in places:
            lost.append(stem)
            continue
        _add(weights, places[stem], parts)
    return weights, lost


def _list_places(originals: Mapping[str, Tensor]) -> dict[str, _Place]:
    places: dict[str, _Place] = {}
    for original in (name.removesuffix(".weight") for name in originals if name.endswith(".weight")):
        places |= dict.fromkeys((f"diffusion_model.{original}", "lora_unet_" + original.replace(".", "_")), _Place(original))
        for library, place in _list_library_names(original, width=originals["img_in.weight"].shape[0]):
            flat = library.replace(".", "_")
            places |= dict.fromkeys((f"transformer.{library}", f"lycoris_{flat}", f"lora_transformer_{flat}", library), place)
    return places


def _list_library_names(original: str, *, width: int) -> Iterable[tuple[str, _Place]]:
    for name, other in _OUTSIDE.items():
        if other == original:
            yield name, _Place(original, swapped=name == "norm_out.linear")
    found = re.fullmatch(r"(double|single)_blocks\.(\d+)\.(.+)", original)
    if found is not None:
        prefix, table = ("transformer_blocks", _STREAMS) if found[1] == "double" else ("single_transformer_blocks", _SINGLE)
        for name, (other, first, num) in table.items():
            if other == found[3]:
                yield f"{prefix}.{found[2]}.{name}", _Place(original, (first * width, num * width) if num else None)


def _add(weights: dict[str, Tensor], place: _Place, parts: Mapping[str, Tensor]) -> None:
    weight = weights[f"{place.original}.weight"]
    weight = weight if place.rows is None else weight.narrow(0, *place.rows)
    algo = next((one for one, names in _FORMS.items() if not set(names).isdisjoint(parts)), None)
    if algo is not None:
        own = {name: tensor.float() for name, tensor in parts.items() if name in _FORMS[algo]}
        rank = next((len(own[name]) for name in _RANKS if name in own), None)
        alpha = float(parts["alpha"]) if "alpha" in parts else math.nan
        alpha = float(rank or 0) if math.isnan(alpha) else alpha
        delta = build_delta(algo if algo != "turns" else "diag-oft", own, alpha=alpha, weight=weight)
        weight += torch.cat(delta.chunk(2)[::-1]) if place.swapped else delta
    if "diff_b" in parts and place.rows is None and not place.swapped:
        weights[f"{place.original}.bias"] += parts["diff_b"]
