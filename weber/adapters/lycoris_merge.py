"""Changes in forms of LyCORIS in the weights of their model."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from functools import partial

import torch
from torch import Tensor

from weber.adapters.lycoris_forms import build_delta
from weber.adapters.lycoris_layers import LayerChange
from weber.adapters.lycoris_names import BIAS
from weber.adapters.merge import build_stranger, check_base, round_finite
from weber.families.finite import read_finite
from weber.families.pairing import Match, swap_halves
from weber.families.tensors import Entry, Weights


@dataclass(frozen=True)
class FusedChange:
    """A change of a layer that the makers have as one and the library as several."""

    match: Match
    change: LayerChange


def build_changed_weights(
    base: Weights, changes: Mapping[str, LayerChange], *, fused: Mapping[str, FusedChange] | None = None, strength: float = 1.0
) -> dict[str, Entry]:
    """A model's weights (under the library's names) with changes in them, in the model's precision; nothing is read yet.

    Raises AdapterError where the model lacks a layer or has it in another shape, or the weights are quantized. What is read is checked:
    each weight raises ModelError where it is not finite.
    """
    fused = fused or {}
    check_base(base, [*changes, *(module for one in fused.values() for module in one.match.modules)])
    _check_shapes(base, changes, fused)
    changed: dict[str, Entry] = {name: replace(entry, read=partial(read_finite, name, entry)) for name, entry in base.items()}
    for name, one in changes.items():
        functions = {".weight": _read_weight} if set(one.tensors) != {BIAS} else {}
        functions |= {".bias": _read_bias} if BIAS in one.tensors else {}
        for ending, function in functions.items():
            entry = changed[name + ending]
            changed[name + ending] = replace(entry, read=partial(function, name + ending, entry, one, strength))
    recent: dict[str, list[Tensor]] = {}
    for whole in fused.values():
        entries = [changed[f"{module}.weight"] for module in whole.match.modules]
        for number, module in enumerate(whole.match.modules):
            read = partial(_read_part, recent, whole, entries=entries, strength=strength, number=number)
            changed[f"{module}.weight"] = replace(entries[number], read=read)
    return changed


def _check_shapes(base: Weights, changes: Mapping[str, LayerChange], fused: Mapping[str, FusedChange]) -> None:
    asked = [(name, one, base[f"{name}.weight"].shape) for name, one in changes.items()]
    for name, whole in fused.items():
        shapes = [base[f"{module}.weight"].shape for module in whole.match.modules]
        asked.append((name, whole.change, (sum(shape[0] for shape in shapes), *shapes[0][1:])))
    strange = [(name, _describe(one), shape) for name, one, shape in asked if not _fits(one, shape)]
    no_biases = [name for name, one in changes.items() if BIAS in one.tensors and f"{name}.bias" not in base]
    if strange or no_biases:
        raise build_stranger(
            [f"{name} {described}" for name, described, _ in strange] + [f"a bias of {name}" for name in no_biases],
            [f"{name} {list(shape)}" for name, _, shape in strange] + [f"{name} without a bias" for name in no_biases],
        )


def _fits(change: LayerChange, shape: Sequence[int]) -> bool:
    return len(shape) == 2 and change.num_outputs == shape[0] and change.num_inputs in (None, shape[1])


def _describe(change: LayerChange) -> str:
    return f"[{change.num_outputs}, {'any' if change.num_inputs is None else change.num_inputs}]"


def _read_weight(name: str, entry: Entry, change: LayerChange, strength: float) -> Tensor:
    weight = entry.read().float()
    delta = build_delta(change.algo, change.read(), alpha=change.alpha, weight=weight)
    return round_finite(name, weight + strength * delta, dtype=entry.dtype)


def _read_bias(name: str, entry: Entry, change: LayerChange, strength: float) -> Tensor:
    return round_finite(name, entry.read().float() + strength * change.tensors[BIAS].read().float().cpu(), dtype=entry.dtype)


def _read_part(recent: dict[str, list[Tensor]], one: FusedChange, *, entries: Sequence[Entry], strength: float, number: int) -> Tensor:
    """The rows of one module; `recent` keeps the others until another layer is read."""
    match, change = one.match, one.change
    if match.original not in recent:
        recent.clear()
        weight = torch.cat([entry.read().float() for entry in entries])
        weight = swap_halves(weight) if match.pairing.swapped else weight
        changed = weight + strength * build_delta(change.algo, change.read(), alpha=change.alpha, weight=weight)
        changed = swap_halves(changed) if match.pairing.swapped else changed
        recent[match.original] = list(torch.split(changed, [entry.shape[0] for entry in entries]))
    return round_finite(f"{match.modules[number]}.weight", recent[match.original][number], dtype=entries[number].dtype)
