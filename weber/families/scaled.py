"""Weights that are kept in fewer bits: fp8 with a scale is made plain; what cannot be made plain is refused in words.

Layouts as ComfyUI writes them: `.weight` in fp8 beside `.scale_weight` (and a tensor `scaled_fp8`), or beside `.weight_scale`, with the
format in `.comfy_quant` (JSON as bytes) or in the header's `_quantization_metadata`. The plain weight is the weight times its scale.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from functools import partial
from pathlib import Path
from typing import NoReturn

import torch
from torch import Tensor

from weber.errors import ModelError
from weber.families.tensors import Entry, Weights

FLOAT8 = (torch.float8_e4m3fn, torch.float8_e5m2)
_SCALES = (".weight_scale", ".scale_weight")
_LEFT_OUT = (".weight_scale", ".scale_weight", ".scale_input", ".input_scale", ".comfy_quant", "scaled_fp8")
_FORMATS = ("float8_e4m3fn", "float8_e5m2")
_METADATA_KEY = "_quantization_metadata"
_FOREIGN = {
    ".quant_state.bitsandbytes__nf4": "4-bit weights of bitsandbytes (nf4)",
    ".quant_state.bitsandbytes__fp4": "4-bit weights of bitsandbytes (fp4)",
    ".absmax": "4-bit weights of bitsandbytes",
    ".SCB": "8-bit weights of bitsandbytes",
    ".weight_scale_2": "4-bit weights in blocks (nvfp4)",
    ".weight_scale_inv": "8-bit weights in blocks",
    ".wscales": "4-bit weights of Nunchaku (SVDQuant)",
    ".qweight": "weights of GPTQ, AWQ or Nunchaku",
    ".weight._data": "weights of quanto",
}


def build_plain_weights(weights: Weights, metadata: Mapping[str, str], *, where: Path) -> Weights:
    """The tensors with fp8 times its scale as fp32 and without the scales. Plain fp8 stays as it is. Raises ModelError.

    `metadata` and `where`: header and name of the file.
    """
    for layer, form in _list_formats(weights, metadata, where).items():
        if form not in _FORMATS:
            _refuse(where, f"{layer} is kept as {form}")
    for name in weights:
        for ending, what in _FOREIGN.items():
            if name.endswith(ending):
                _refuse(where, f"{what}: it has {name}")
    plain = {}
    for name, entry in weights.items():
        if name.endswith(_LEFT_OUT):
            continue
        scale = next((weights[stem + end] for end in _SCALES if (stem := name.removesuffix(".weight")) + end in weights), None)
        plain[name] = _rescale(name, entry, scale, where) if scale is not None and name.endswith(".weight") else _check(name, entry, where)
    return plain


def _list_formats(weights: Weights, metadata: Mapping[str, str], where: Path) -> dict[str, str]:
    """Format of each layer that says so."""
    texts: dict[str, object] = {}
    try:
        layers = json.loads(metadata.get(_METADATA_KEY, "{}")).get("layers", {})
        texts |= layers
        for name, entry in weights.items():
            if name.endswith(".comfy_quant"):
                texts[name.removesuffix(".comfy_quant")] = json.loads(bytes(entry.read().tolist()))
        return {layer: _read_format(row) for layer, row in texts.items()}
    except (ValueError, AttributeError, TypeError) as error:
        raise ModelError(
            f"{where} says in a way that weber does not know how its weights are kept.",
            got=str(error),
            fix="use the model in bf16, fp16 or fp8",
        ) from error


def _read_format(row: object) -> str:
    if not isinstance(row, dict):
        return str(row)
    return f"{row.get('format')}{', rotated' if row.get('convrot') else ''}"


def _rescale(name: str, entry: Entry, scale: Entry, where: Path) -> Entry:
    rows = entry.shape[0]
    if entry.dtype not in FLOAT8:
        _refuse(where, f"{name} is kept as {entry.dtype} with a scale")
    if scale.shape not in ((), (1,), (1, 1), (rows,), (rows, 1)):
        _refuse(where, f"the scale of {name} has the shape {list(scale.shape)}")
    # In fp32, as bf16 has too few bits for the product of 4 bits and a scale in fp32.
    return Entry(entry.shape, torch.float32, partial(_multiply, entry, scale), is_quantized=True)


def _multiply(entry: Entry, scale: Entry) -> Tensor:
    factor = scale.read().float()
    tensor = entry.read().float()
    return tensor.mul_(factor.reshape(-1, *[1] * (tensor.ndim - 1)) if factor.numel() > 1 else factor.reshape(()))


def _check(name: str, entry: Entry, where: Path) -> Entry:
    if name.endswith(".weight") and not entry.dtype.is_floating_point:
        _refuse(where, f"{name} is kept as {entry.dtype}")
    return entry


def _refuse(where: Path, got: str) -> NoReturn:
    raise ModelError(
        f"The weights in {where} are quantized in a way that cannot be trained on.",
        got=got,
        expected="bf16, fp16, fp32, or fp8 with or without one scale per tensor or row",
        fix="use the same model in bf16 or fp8",
    )
