"""Changes of CLIP, the first text encoder, beside those of the transformer: which they are, and how each program names them.

| layout    | stem of a tensor's name                                                         |
|-----------|---------------------------------------------------------------------------------|
| diffusers | `text_encoder.text_model.encoder.layers.0.self_attn.q_proj`                     |
| kohya     | `lora_te1_text_model_encoder_layers_0_self_attn_q_proj` (sd-scripts) |
| comfyui   | `text_encoders.clip_l.transformer.text_model.encoder.layers.0.self_attn.q_proj` (`comfy/lora.py`) |

The first is also the name of the module here. Newer releases of the library have no `text_model.` in it: files of both kinds are read, and
those with it written, which all releases read.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping
from typing import TypeVar

from weber.errors import AdapterError
from weber.families.table import FamilyRow

TEXT_PREFIX = "text_encoder."
"""Of the names of CLIP's layers, its parameters and all that belongs to them."""
KOHYA_PREFIX, COMFYUI_PREFIX = "lora_te1_", "text_encoders.clip_l.transformer."

ROOT = "text_model."
_STEM = re.compile(r"(?:text[._]model[._])?encoder[._]layers[._](\d+)[._](?:self[._]attn[._]([qkv]|out)[._]proj|mlp[._](fc[12]))")
_CLASS = "clip_text_model"
Value = TypeVar("Value")


def is_text(module: str) -> bool:
    """Whether a module or a parameter is one of CLIP."""
    return module.startswith(TEXT_PREFIX)


def split_modules(modules: Mapping[str, Value]) -> tuple[dict[str, Value], dict[str, Value]]:
    """What is of the transformer, and what is of CLIP."""
    return (
        {name: value for name, value in modules.items() if not is_text(name)},
        {name: value for name, value in modules.items() if is_text(name)},
    )


def find_text_module(stem: str) -> str | None:
    """The module that a tensor's name means, without its prefix; None for what is none of CLIP's attention and feed-forward layers."""
    found = _STEM.fullmatch(stem)
    if found is None:
        return None
    number, projection, feed_forward = found.groups()
    layer = f"mlp.{feed_forward}" if projection is None else f"self_attn.{projection}_proj"
    return f"{TEXT_PREFIX}{ROOT}encoder.layers.{number}.{layer}"


def build_text_stem(module: str, layout: str) -> str:
    """A module's name in a layout whose names are the makers'."""
    name = module.removeprefix(TEXT_PREFIX)
    return KOHYA_PREFIX + name.replace(".", "_") if layout == "kohya" else COMFYUI_PREFIX + name


def has_clip(family: FamilyRow) -> bool:
    """Whether models of a family have CLIP."""
    return any(_CLASS in original.kinds for original in family.originals["text_encoder"])


def check_transformer_only(modules: Iterable[str], *, what: str, fix: str) -> None:
    """Raise AdapterError where changes of CLIP are among those that the transformer alone is to get. `what`: the sentence."""
    text = [name for name in modules if is_text(name)]
    if text:
        raise AdapterError(what, got=f"{len(text)} layers of CLIP, such as {text[0]}", expected="layers of the transformer alone", fix=fix)
