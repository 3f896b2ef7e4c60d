"""How much of a change is left where the model has few bits: the change is merged into weights that were rounded, and these are rounded
again.

With W the weight, D its change and Q(.) rounding to a format and reading it again, what arrives is Q(Q(W) + D) - Q(W). The share that
survives is its part along D, <arrived, D> / <D, D>; the error is the length of what differs, |arrived - D| / |D|.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass, field

import torch
from torch import Tensor

from weber.adapters.compare import build_changed, build_plain
from weber.adapters.files import AdapterFile
from weber.adapters.lycoris_files import LycorisFile
from weber.families.finite import read_finite
from weber.families.tensors import Weights
from weber.memory.formats import FORMATS, Format
from weber.progress import Progress, ignore_progress

LOW = ("fp8", "int8", "nf4")
"""Formats that people run models in."""
_NUM_ROWS = 256
"""Rows of a matrix that are copied to fp64 at once."""


@dataclass(frozen=True)
class Survival:
    """What is left of a change in a format, of all layers together; `layers`: the share of each layer."""

    format: str
    share: float
    error: float
    layers: dict[str, float]

    def __str__(self) -> str:
        worst = min(self.layers, key=lambda name: self.layers[name])
        return f"{self.share:.1%} of the change survives, error {self.error:.1%}; least in {worst}: {self.layers[worst]:.1%}"


@dataclass
class _Sums:
    """Of one format: inner products and squares, added up over layers."""

    along: float = 0.0
    whole: float = 0.0
    missing: float = 0.0
    layers: dict[str, float] = field(default_factory=dict)


def measure_survival(
    adapter: AdapterFile, base: Weights, *, formats: Sequence[str] = LOW, progress: Progress = ignore_progress
) -> list[Survival]:
    """What is left of an adapter's change in each format, on the weights of its model; nothing where it changes none.

    Biases stay as they are in all formats, and do not count. One layer in memory at a time. Raises AdapterError where it is for another
    model.
    """
    plain = build_plain(base)
    changed = build_changed(adapter, plain)
    names = [name for name, entry in changed.items() if len(entry.shape) == 2 and name.removesuffix(".weight") in _list_modules(adapter)]
    sums = {name: _Sums() for name in formats}
    for number, name in enumerate(names):
        progress("rounding the model with its change", number, len(names))
        weight = read_finite(name, plain[name])
        delta = changed[name].read() - weight
        whole = _multiply(delta, delta)
        for format, one in sums.items() if whole else ():
            along, missing = _measure(weight, delta, format=FORMATS[format])
            one.layers[name.removesuffix(".weight")] = along / whole
            one.along, one.whole, one.missing = one.along + along, one.whole + whole, one.missing + missing
    progress("rounding the model with its change", len(names), len(names))
    return [
        Survival(name, one.along / one.whole, math.sqrt(one.missing / one.whole), one.layers) for name, one in sums.items() if one.whole
    ]


def _list_modules(adapter: AdapterFile) -> set[str]:
    if isinstance(adapter, LycorisFile):
        return {*adapter.changes, *(module for one in adapter.fused.values() for module in one.match.modules)}
    return set(adapter.modules)


def _measure(weight: Tensor, delta: Tensor, *, format: Format) -> tuple[float, float]:
    """What arrives of a change, along it, and the square of what differs."""
    low = _round(weight, format)
    arrived = _round(low + delta, format).sub_(low)
    along = _multiply(arrived, delta)
    missing = arrived.sub_(delta)
    return along, _multiply(missing, missing)


def _round(weight: Tensor, format: Format) -> Tensor:
    shape = (weight.shape[0], weight.shape[1])
    return format.unpack(format.pack(weight), shape=shape, dtype=torch.float32)


def _multiply(first: Tensor, second: Tensor) -> float:
    """The inner product, added up in fp64."""
    parts = zip(torch.split(first, _NUM_ROWS), torch.split(second, _NUM_ROWS), strict=True)
    return math.fsum(float((one.double() * other.double()).sum()) for one, other in parts)
