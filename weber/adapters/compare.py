"""How far two adapters are from each other, layer by layer: lengths of their changes, of the difference, and the angle between them.

The change of a LoRA is never built: small matrices have the same lengths and angles. Those of other forms are read one after the other.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from functools import partial

import torch
from torch import Tensor

from weber.adapters.factors import Factors
from weber.adapters.files import AdapterFile
from weber.adapters.lycoris_files import LycorisFile
from weber.adapters.lycoris_forms import LENGTHS, build_delta
from weber.adapters.lycoris_layers import LayerChange
from weber.adapters.lycoris_merge import FusedChange, build_changed_weights
from weber.adapters.lycoris_names import BIAS
from weber.adapters.merge import build_merged_weights
from weber.adapters.text import split_modules
from weber.errors import AdapterError
from weber.families.pairing import swap_halves
from weber.families.tensors import Entry, Weights
from weber.progress import Progress, ignore_progress

Change = Factors | Tensor
"""The change of one layer: as factors, or whole."""
Reads = Mapping[str, Callable[[], Change]]
"""Layer -> what reads its change; a bias is a layer of its own, `<layer>.bias`."""

_OF_MODEL = ("glora", "diag-oft", "boft")
"""Forms whose change depends on the weights of the model."""
_NUM_SHOWN = 10


@dataclass(frozen=True)
class Distance:
    """Two changes: `first` and `second` are their lengths, `distance` that of their difference (Frobenius), `cosine` of the angle.

    The cosine is 0 where one of them is nothing.
    """

    name: str
    first: float
    second: float
    distance: float
    cosine: float

    @property
    def share(self) -> float:
        """The difference as a share of the longer change: 0 are equal, 1 has nothing of the other, 2 are opposite."""
        longer = max(self.first, self.second)
        return self.distance / longer if longer else 0.0


@dataclass(frozen=True)
class Comparison:
    """Two adapters. `layers`: all that either has, those that differ most first; `total`: all layers as one change.

    `only_first`, `only_second`: layers that one of them alone has. `str` of it is what `weber diff` prints.
    """

    layers: tuple[Distance, ...]
    total: Distance
    only_first: tuple[str, ...]
    only_second: tuple[str, ...]

    @property
    def different(self) -> list[Distance]:
        """Those layers that are not equal, most different first."""
        return [one for one in self.layers if one.distance > 0]

    def __str__(self) -> str:
        return self.describe()

    def describe(self, num: int = _NUM_SHOWN) -> str:
        """In words, with that many layers."""
        both = len(self.layers) - len(self.only_first) - len(self.only_second)
        differ = len(self.different) - sum(one.distance > 0 for one in self.layers if one.name in {*self.only_first, *self.only_second})
        lines = [f"{both} layers in both, of which {differ} differ"]
        for which, names in (("first", self.only_first), ("second", self.only_second)):
            shown = ", ".join(names[:3]) + (f" and {len(names) - 3} more" if names[3:] else "")
            lines += [f"{len(names)} in the {which} only: {shown}"] if names else []
        lines.append(f"together: difference {self.total.share:.2%} of the larger change, cosine {self.total.cosine:.4f}")
        lines.append(f"lengths of the changes: {self.total.first:.4g} and {self.total.second:.4g}")
        lines += [f"  {one.share:8.2%}  cosine {one.cosine:7.4f}  {one.name}" for one in self.different[:num]]
        rest = len(self.different) - num
        return "\n".join(lines + ([f"  ... and {rest} more"] if rest > 0 else []))


def list_changes(adapter: AdapterFile) -> Reads:
    """What an adapter changes. Raises AdapterError where that depends on the weights of its model: then `list_model_changes` says it."""
    if not isinstance(adapter, LycorisFile):
        _check_own(any(one.magnitude is not None for one in adapter.modules.values()), "a DoRA")
        return {name: partial(_give, one) for name, one in adapter.modules.items()}
    strange = [one for one in adapter.layers if one.algo in _OF_MODEL or LENGTHS in one.tensors]
    _check_own(bool(strange), f"{strange[0].algo if strange else ''} of LyCORIS")
    reads: dict[str, Callable[[], Change]] = {}
    for name, one in adapter.changes.items():
        reads |= {name: partial(_read_whole, one)} if set(one.tensors) != {BIAS} else {}
        reads |= {f"{name}.bias": partial(_read_bias, one)} if BIAS in one.tensors else {}
    for whole in adapter.fused.values():
        reads |= {name: partial(_read_rows, whole, number) for number, name in enumerate(whole.match.modules)}
    return reads


def list_model_changes(adapter: AdapterFile, base: Weights) -> Reads:
    """What an adapter changes in the weights of a model (under the library's names). Raises AdapterError where it is for another one."""
    plain = build_plain(base)
    changed = build_changed(adapter, plain)
    names = [name for name, entry in changed.items() if _is_changed(adapter, name.removesuffix(".weight").removesuffix(".bias"), name)]
    return {name.removesuffix(".weight"): partial(_read_delta, plain[name], changed[name]) for name in names}


def build_plain(base: Weights) -> dict[str, Entry]:
    """The weights of a model in fp32, quantized ones as they are read."""
    return {
        name: replace(entry, dtype=torch.float32, is_quantized=False, read=partial(_read_float, entry)) for name, entry in base.items()
    }


def build_changed(adapter: AdapterFile, base: Weights) -> dict[str, Entry]:
    """A model's weights with an adapter of any kind in them, in the model's precision; changes of CLIP are left out."""
    if isinstance(adapter, LycorisFile):
        return build_changed_weights(base, adapter.changes, fused=adapter.fused)
    return build_merged_weights(base, [(split_modules(adapter.modules)[0], 1.0)])


def compare(first: Reads, second: Reads, *, progress: Progress = ignore_progress) -> Comparison:
    """Two adapters of one model. Raises AdapterError where a layer of both has two shapes."""
    names = list(dict.fromkeys((*first, *second)))
    layers = []
    for number, name in enumerate(names):
        progress("comparing the adapters", number, len(names))
        layers.append(_compare_layer(name, first.get(name), second.get(name)))
    progress("comparing the adapters", len(names), len(names))
    own, other = math.hypot(*(one.first for one in layers)), math.hypot(*(one.second for one in layers))
    inner = sum(one.cosine * one.first * one.second for one in layers)
    total = Distance("all", own, other, math.hypot(*(one.distance for one in layers)), _divide(inner, own * other))
    only = [tuple(name for name in names if name not in other) for other in (second, first)]
    return Comparison(tuple(sorted(layers, key=lambda one: -one.share)), total, only[0], only[1])


def measure(first: Change, second: Change, *, name: str = "") -> Distance:
    """The distance of two changes of one layer; 0 where they are equal to the bit."""
    cores: Sequence[Tensor]
    if isinstance(first, Factors) and isinstance(second, Factors):
        is_same = _is_same(first, second)
        cores = _build_cores([first, second])
    else:
        cores = [one.build_delta() if isinstance(one, Factors) else one for one in (first, second)]
        is_same = torch.equal(cores[0], cores[1])
    own, other = _measure_length(cores[0]), _measure_length(cores[1])
    if is_same:
        return Distance(name, own, own, 0.0, 1.0 if own else 0.0)
    inner = float((cores[0].double() * cores[1].double()).sum())
    return Distance(name, own, other, _measure_length(cores[0].double() - cores[1].double()), _divide(inner, own * other))


def _compare_layer(name: str, first: Callable[[], Change] | None, second: Callable[[], Change] | None) -> Distance:
    changes = [None if read is None else read() for read in (first, second)]
    there = [one for one in changes if one is not None]
    shapes = {_find_shape(one) for one in there}
    if len(shapes) > 1:
        raise AdapterError(
            "The adapters are for different models.",
            got=f"{name} of {' and '.join('x'.join(map(str, shape)) for shape in sorted(shapes))}",
            expected="layers of one size",
            fix="compare adapters of one model",
        )
    if len(there) == 2:
        return measure(there[0], there[1], name=name)
    length = measure(there[0], there[0]).first
    return Distance(name, length if changes[0] is not None else 0.0, length if changes[1] is not None else 0.0, length, 0.0)


def _build_cores(parts: Sequence[Factors]) -> list[Tensor]:
    """A small matrix for each change, with the lengths and angles that the changes have, in fp64."""
    up = torch.linalg.qr(torch.cat([part.build_baked().up.double() for part in parts], dim=1))[1]
    down = torch.linalg.qr(torch.cat([part.down.double() for part in parts]).T)[1]
    ranks = [part.rank for part in parts]
    return [one @ other.T for one, other in zip(up.split(ranks, dim=1), down.split(ranks, dim=1), strict=True)]


def _is_same(first: Factors, second: Factors) -> bool:
    one, other = first.build_baked(), second.build_baked()
    return one.rank == other.rank and torch.equal(one.up.float(), other.up.float()) and torch.equal(one.down.float(), other.down.float())


def _measure_length(tensor: Tensor) -> float:
    return float(torch.linalg.vector_norm(tensor, dtype=torch.float64))


def _divide(inner: float, lengths: float) -> float:
    return max(-1.0, min(1.0, inner / lengths)) if lengths else 0.0


def _find_shape(change: Change) -> tuple[int, ...]:
    return (change.up.shape[0], change.down.shape[1]) if isinstance(change, Factors) else tuple(change.shape)


def _is_changed(adapter: AdapterFile, module: str, name: str) -> bool:
    if not isinstance(adapter, LycorisFile):
        return name.endswith(".weight") and module in adapter.modules
    one = adapter.changes.get(module)
    if one is None:
        return name.endswith(".weight") and any(module in whole.match.modules for whole in adapter.fused.values())
    return BIAS in one.tensors if name.endswith(".bias") else set(one.tensors) != {BIAS}


def _check_own(is_of_model: bool, kind: str) -> None:
    if is_of_model:
        raise AdapterError(
            "What the adapter changes depends on the weights of its model.",
            got=f"{kind}, and no model",
            expected="the model that it was trained on",
            fix="add --base with it: a variant, a folder, a hub id or a file",
        )


def _give(change: Change) -> Change:
    return change


def _read_whole(change: LayerChange) -> Tensor:
    tensors = {name: tensor for name, tensor in change.read().items() if name != BIAS}
    return build_delta(change.algo, tensors, alpha=change.alpha, weight=None)


def _read_bias(change: LayerChange) -> Tensor:
    return change.tensors[BIAS].read().float().cpu()


def _read_rows(whole: FusedChange, number: int) -> Tensor:
    delta = _read_whole(whole.change)
    delta = swap_halves(delta) if whole.match.pairing.swapped else delta
    return torch.split(delta, whole.match.pairing.split(len(delta)))[number]


def _read_float(entry: Entry) -> Tensor:
    return entry.read().float()


def _read_delta(base: Entry, changed: Entry) -> Tensor:
    return changed.read() - base.read()
