"""Adapters added up: into one adapter, or into the weights of their model."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import replace
from functools import partial

import torch
from torch import Tensor

from weber.adapters.factors import Factors, build_scaled
from weber.adapters.text import check_transformer_only
from weber.errors import AdapterError
from weber.families.finite import is_finite, read_finite
from weber.families.tensors import Entry, Weights

Weighted = tuple[Mapping[str, Factors], float]
"""An adapter's modules, and how strongly it takes part; 1 is as trained."""

_PLAIN = (torch.float32, torch.bfloat16, torch.float16)
_NUM_SHOWN = 3


def build_merged_adapter(adapters: Sequence[Weighted], *, rank: int | None = None) -> dict[str, Factors]:
    """One adapter that changes what all of them change together.

    Exact: the factors stand side by side, so ranks add up. With `rank`, layers above it are cut to their `rank` largest directions.
    Raises AdapterError for DoRAs, whose sum depends on the model, and for layers of different shapes.
    """
    names = dict.fromkeys(name for modules, _ in adapters for name in modules)
    merged = {}
    for name in names:
        parts = [(modules[name], weight) for modules, weight in adapters if name in modules]
        _check_parts(name, [part for part, _ in parts])
        down = torch.cat([part.down.float() for part, _ in parts])
        up = torch.cat([build_scaled(part.up.float(), part.scale * weight) for part, weight in parts], dim=1)
        factors = Factors(down, up, float(len(down)))
        merged[name] = factors if rank is None or factors.rank <= rank else build_cut(factors, rank)
    return merged


def build_cut(factors: Factors, rank: int) -> Factors:
    """The nearest change of that rank, or of the layer's smaller side: its largest singular values."""
    left, values, right = decompose(factors)
    rank = min(rank, len(values))
    root = values[:rank].sqrt()
    up, down = left[:, :rank] * root, root[:, None] * right[:rank]
    return Factors(down.float().contiguous(), up.float().contiguous(), float(rank))


def decompose(factors: Factors) -> tuple[Tensor, Tensor, Tensor]:
    """U (O, K), S (K,) and V (K, I) of a change, in fp64: all of its directions, largest first, without building the whole matrix."""
    up_basis, up_rest = torch.linalg.qr(factors.build_baked().up.double())
    down_basis, down_rest = torch.linalg.qr(factors.down.double().T)
    left, values, right = torch.linalg.svd(up_rest @ down_rest.T, full_matrices=False)
    return up_basis @ left, values, right @ down_basis.T


def check_mergeable(names: Iterable[str]) -> None:
    """Raise AdapterError where changes of CLIP would be lost."""
    check_transformer_only(
        names,
        what="The adapter changes CLIP too, and a merged model is the transformer alone, so that part would be lost.",
        fix="keep it as an adapter file: the layouts diffusers, kohya and comfyui carry both",
    )


def check_base(base: Weights, names: Iterable[str]) -> None:
    """Raise AdapterError where adapters of the layers `names` cannot be merged into `base`; reads no weights.

    Weights with a scale are refused in other layers too, because they would be written in fp32.
    """
    listed = list(names)
    check_mergeable(listed)
    absent = [name for name in listed if f"{name}.weight" not in base]
    if absent:
        raise build_stranger([f"{name}, which the model does not have" for name in absent], ["layers of the model"])
    quantized = [f"{name}.weight" for name in listed if base[f"{name}.weight"].dtype not in _PLAIN]
    quantized += [name for name, entry in base.items() if entry.is_quantized]
    if quantized:
        raise AdapterError(
            "Adapters are not merged into quantized weights, because the sum would have to be quantized anew.",
            got=f"{quantized[0]} in {'fp8 with a scale' if base[quantized[0]].is_quantized else base[quantized[0]].dtype}",
            expected="weights in bf16, fp16 or fp32",
            fix="merge into the model as it was before it was quantized",
        )


def build_merged_weights(base: Weights, adapters: Sequence[Weighted]) -> dict[str, Entry]:
    """A model's weights (under the library's names) with adapters in them, in the model's precision; nothing is read yet.

    Each adapter changes what the model was before: W + sum of weight * (changed W - W), in fp32. Raises AdapterError where an adapter
    has layers that the model lacks or has in other shapes, or the weights are quantized. What is read is checked: each weight raises
    ModelError where it is not finite.
    """
    changes: dict[str, list[tuple[Factors, float]]] = {}
    for modules, weight in adapters:
        for name, factors in modules.items():
            changes.setdefault(f"{name}.weight", []).append((factors, weight))
    check_base(base, [name.removesuffix(".weight") for name in changes])
    shapes = {name: _shape(part) for name, parts in changes.items() for part, _ in parts if _shape(part) != base[name].shape}
    if shapes:
        expected = [f"{name} {list(base[name].shape)}" for name in shapes]
        raise build_stranger([f"{name} {list(shape)}" for name, shape in shapes.items()], expected)
    reads = {name: partial(_read_merged, parts=changes[name]) if name in changes else read_finite for name in base}
    return {name: replace(entry, read=partial(reads[name], name, entry)) for name, entry in base.items()}


def round_finite(name: str, weight: Tensor, *, dtype: torch.dtype) -> Tensor:
    """A changed weight in the model's precision. Raises AdapterError where that has no room for its numbers."""
    rounded = weight.to(dtype)
    if not is_finite(rounded):
        raise AdapterError(
            "The merged model would hold numbers that are not finite.",
            got=f"{name} with numbers up to {float(weight.abs().max()):.3g} in {str(dtype).removeprefix('torch.')}",
            expected=f"numbers up to {torch.finfo(dtype).max:.3g}",
            fix="lower the weight of the adapter, or check that it is for this model",
        )
    return rounded


def _read_merged(name: str, entry: Entry, *, parts: Sequence[tuple[Factors, float]]) -> Tensor:
    weight = read_finite(name, entry).float()
    merged = weight.clone()
    for factors, strength in parts:
        if factors.magnitude is None:
            merged += strength * factors.build_delta()
        else:
            merged += strength * (factors.build_weight(weight) - weight)
    return round_finite(name, merged, dtype=entry.dtype)


def build_stranger(got: Sequence[str], expected: Sequence[str]) -> AdapterError:
    """The error for an adapter of another model."""
    return AdapterError(
        "The adapter is not for this model.",
        got=", ".join(got[:_NUM_SHOWN]),
        expected=", ".join(expected[:_NUM_SHOWN]),
        fix="choose the model that the adapter was trained on",
    )


def _shape(factors: Factors) -> tuple[int, int]:
    return factors.up.shape[0], factors.down.shape[1]


def _check_parts(name: str, parts: Sequence[Factors]) -> None:
    shapes = {_shape(part) for part in parts}
    if len(shapes) > 1:
        raise AdapterError(
            "The adapters are for different models.", got=f"{name} of {' and '.join(map(str, sorted(shapes)))}", fix="merge those of one"
        )
    if any(part.magnitude is not None for part in parts):
        raise AdapterError(
            "A DoRA cannot be merged with other adapters, because what it changes depends on the model.",
            got=f"magnitudes of {name}",
            fix="merge it into the model itself",
        )
