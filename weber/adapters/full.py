"""The weights of a transformer themselves as what learns: all of them, or those of some modules; and their way into a whole model.

Trained weights may have more bits than the model computes with. Then each layer rounds its own for each use, so that the network computes
exactly what the model will, once it is saved in the precision that it computes in.
"""

from __future__ import annotations

from collections.abc import Collection, Mapping, Sequence
from dataclasses import replace
from functools import partial

import torch
from torch import Tensor, nn
from torch.nn import functional

from weber.adapters.target import build_absent, list_patterns
from weber.blocks.layer import Layer, Readable, ReadableNorm
from weber.errors import AdapterError
from weber.families.finite import read_finite
from weber.families.pattern import is_any, is_named
from weber.families.tensors import Entry, Weights

ALL = "all"
"""Every parameter of the transformer; a set of that name means something else to a LoRA."""
_PLAIN = (torch.float32, torch.bfloat16, torch.float16)
_NUM_SHOWN = 3

Parameters = Sequence[tuple[str, nn.Parameter]]


def list_trained(model: nn.Module, targets: str | Sequence[str], *, sets: Mapping[str, Sequence[str]]) -> list[str]:
    """Names of the parameters of `model` that `targets` means, in the model's order: those in modules that a pattern matches.

    A string is `all` or the name of a set; a list holds patterns: the end of a module's name, at a dot, in which `*` stands for any text.
    A module may be a layer, or anything that holds layers. Raises AdapterError with near matches where a pattern matches nothing.
    """
    names = [name for name, _ in model.named_parameters()]
    if targets == ALL:
        return names
    modules = list(dict.fromkeys(parent for name in names for parent in _list_parents(name)))
    patterns = list_patterns(targets, sets) if isinstance(targets, str) else list(targets)
    absent = [pattern for pattern in patterns if not any(is_named(module, pattern) for module in modules)]
    if absent or not patterns:
        raise build_absent(targets, absent, names=modules, what="module with weights")
    chosen = {module for module in modules if is_any(module, patterns)}
    return [name for name in names if chosen.intersection(_list_parents(name))]


def check_whole(base: Weights, names: Collection[str]) -> None:
    """Raise AdapterError where a model with trained weights `names` cannot be written from the files of its base; reads no weights."""
    quantized = [name for name, entry in base.items() if entry.is_quantized or (name in names and entry.dtype not in _PLAIN)]
    if quantized:
        entry = base[quantized[0]]
        raise AdapterError(
            "The weights of a quantized model are not trained themselves, because the result would have to be quantized anew.",
            got=f"{quantized[0]} in {'fp8 with a scale' if entry.is_quantized else entry.dtype}",
            expected="weights in bf16, fp16 or fp32",
            fix='train the model as it was before it was quantized, or a LoRA (adapter.kind = "lora")',
        )


def build_full(model: nn.Module, names: Collection[str], *, precision: torch.dtype, base: Weights) -> list[tuple[str, nn.Parameter]]:
    """Make the parameters `names` learn, in place, and all others not; returns them in the model's order, in `precision`.

    Those that the library keeps in fp32 stay so. The model computes in the precision that it was loaded in. `base` is what it was loaded
    from: numbers that have more bits there, and for which `precision` has room, are read again.
    """
    check_whole(base, names)
    learning = [(name, parameter) for name, parameter in model.named_parameters() if name in names]
    if any(parameter.dtype.itemsize < precision.itemsize for _, parameter in learning):
        _round_uses(model, names)
    for parameter in model.parameters():
        parameter.requires_grad_(False)
    for name, parameter in learning:
        parameter.requires_grad_(True)
        if parameter.dtype.itemsize < precision.itemsize:
            is_finer = base[name].dtype.itemsize > parameter.dtype.itemsize
            source = base[name].read() if is_finer else parameter.detach()
            parameter.data = source.to(parameter.device, precision).contiguous()
    return learning


def load_tensors(parameters: Parameters, weights: Weights, *, where: str) -> None:
    """Write numbers into parameters, wherever these are, rounded to their precision. Raises AdapterError where they do not fit."""
    check_tensors({name: tuple(parameter.shape) for name, parameter in parameters}, weights, where=where)
    for name, parameter in parameters:
        parameter.data.copy_(weights[name].read())


def check_tensors(shapes: Mapping[str, tuple[int, ...]], weights: Weights, *, where: str) -> None:
    """Raise AdapterError where tensors are missing or have other shapes; `where` says what they are from. Reads no weights."""
    strange = [name for name, shape in shapes.items() if name not in weights or weights[name].shape != shape]
    if strange:
        raise AdapterError(
            f"The weights in {where} are not those that the settings train.",
            got=", ".join(f"{name} {list(weights[name].shape)}" if name in weights else f"no {name}" for name in strange[:_NUM_SHOWN]),
            expected=", ".join(f"{name} {list(shapes[name])}" for name in strange[:_NUM_SHOWN]),
            fix="use the settings and the model that they were trained with",
        )


def build_whole_weights(base: Weights, trained: Weights) -> dict[str, Entry]:
    """A whole model: the tensors of its base, and in place of some of them the trained ones, in the precision that the base's files have.

    Nothing is read yet. Raises AdapterError where the base is quantized, or another model; a trained tensor that is read raises ModelError
    where it is not finite.
    """
    check_whole(base, trained)
    check_tensors({name: entry.shape for name, entry in trained.items()}, base, where="the base model")
    return {
        name: replace(entry, read=partial(_read_as, name, trained[name], entry.dtype)) if name in trained else entry
        for name, entry in base.items()
    }


def _read_as(name: str, entry: Entry, dtype: torch.dtype) -> Tensor:
    return read_finite(name, entry).detach().to(dtype)


def _list_parents(name: str) -> list[str]:
    """`a.b.weight` is in the modules `a` and `a.b`."""
    words = name.split(".")
    return [".".join(words[:number]) for number in range(1, len(words))]


def _round_weight(weights: tuple[Tensor, ...], dtype: torch.dtype) -> Tensor:
    return weights[0].to(dtype)


class _RoundedLinear(nn.Linear, Readable):
    """A layer that computes in `computed`, whatever its weights and its input have."""

    computed: torch.dtype

    def forward(self, input: Tensor) -> Tensor:
        bias = None if self.bias is None else self.bias.to(self.computed)
        return functional.linear(input.to(self.computed), self.weight.to(self.computed), bias)

    def read_layer(self) -> Layer:
        """See `Readable`."""
        return Layer(self.out_features, self.computed, (self.weight,), self.bias, unpack=_round_weight)


class _RoundedNorm(nn.RMSNorm, ReadableNorm):
    """The same of a norm, but that its input is left as it is: some models compute it in fp32."""

    computed: torch.dtype

    def forward(self, x: Tensor) -> Tensor:
        return functional.rms_norm(x, self.normalized_shape, self.read_weight(), self.eps)

    def read_weight(self) -> Tensor:
        """As it is used."""
        return self.weight.to(self.computed)


_ROUNDED: dict[type[nn.Module], type[nn.Module]] = {nn.Linear: _RoundedLinear, nn.RMSNorm: _RoundedNorm}


def _round_uses(model: nn.Module, names: Collection[str]) -> None:
    """Let every layer compute in the precision that its weights have now, before they get another.

    Frozen ones too: what the network is told is cast to the precision of its first layer, which may learn. Not by autocast: that computes
    norms in fp32, keeps their larger outputs, and would have to be on wherever a block is run again.
    """
    for path, module in model.named_modules():
        if type(module) in _ROUNDED and module.weight is not None:
            module.__class__ = _ROUNDED[type(module)]
            module.computed = module.weight.dtype
        else:
            learning = [leaf for leaf, _ in module.named_parameters(recurse=False) if f"{path}.{leaf}" in names]
            assert not learning, f"{path} is a {type(module).__name__}, which does not round its weights"
