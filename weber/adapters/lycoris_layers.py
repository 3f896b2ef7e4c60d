"""What a file in a form of LyCORIS changes of one layer: the tensors that each form needs, and the change of some of the layer's rows.

Legend of shapes, a letter for each axis: o outputs, i inputs, x y ranks; of a Kronecker product a b the first factor and c d the second
(o = a c, i = b d); of turns n blocks of s x s (o = n s), and m stages.
"""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from functools import partial

import torch
from torch import Tensor

from weber.adapters.lycoris_forms import LENGTHS, find_rank
from weber.errors import AdapterError
from weber.families.tensors import Entry

ALPHA = "alpha"
Ranges = Sequence[tuple[int, int]]
"""Rows of a layer, from one to before another."""

_SHAPES: Mapping[str, Mapping[str, str]] = {
    "lokr": {"lokr_w1": "ab", "lokr_w1_a": "ax", "lokr_w1_b": "xb", "lokr_w2": "cd", "lokr_w2_a": "cy", "lokr_w2_b": "yd"},
    "loha": {"hada_w1_a": "ox", "hada_w1_b": "xi", "hada_w2_a": "oy", "hada_w2_b": "yi"},
    "lora": {"lora_up": "ox", "lora_down": "xi"},
    "full": {"diff": "oi", "diff_b": "o"},
    "diag-oft": {"oft_blocks": "nss", "rescale": "o1"},
    "boft": {"oft_blocks": "mnss", "rescale": "o1"},
    "glora": {"a1": "ix", "a2": "xi", "b1": "oy", "b2": "yi"},
}
"""Form -> the tensors that it may have, and their axes."""
_NEEDED: Mapping[str, Sequence[Sequence[Sequence[str]]]] = {
    "lokr": [[["lokr_w1"], ["lokr_w1_a", "lokr_w1_b"]], [["lokr_w2"], ["lokr_w2_a", "lokr_w2_b"]]],
    "loha": [[["hada_w1_a", "hada_w1_b", "hada_w2_a", "hada_w2_b"]]],
    "lora": [[["lora_up", "lora_down"]]],
    "full": [[["diff"], ["diff_b"], ["diff", "diff_b"]]],
    "diag-oft": [[["oft_blocks"]]],
    "boft": [[["oft_blocks"]]],
    "glora": [[["a1", "a2", "b1", "b2"]]],
}
"""Form -> what has to be there: one of the alternatives of each group, whole."""
_TURNS = ("diag-oft", "boft")


@dataclass(frozen=True)
class LayerChange:
    """What a file changes of one layer. `sizes`: of the axes, by their letters."""

    algo: str
    tensors: Mapping[str, Entry]
    alpha: float
    sizes: Mapping[str, int]

    def read(self) -> dict[str, Tensor]:
        """Its numbers in fp32, on the CPU."""
        return {name: entry.read().float().cpu() for name, entry in self.tensors.items()}

    def build_sizes(self) -> dict[str, Tensor]:
        """Its tensors without numbers."""
        return {name: torch.empty(entry.shape, device="meta") for name, entry in self.tensors.items()}

    @property
    def num_outputs(self) -> int:
        """Rows of the layer's weight."""
        sizes = self.sizes
        return sizes["a"] * sizes["c"] if self.algo == "lokr" else sizes["n"] * sizes["s"] if self.algo in _TURNS else sizes["o"]

    @property
    def num_inputs(self) -> int | None:
        """Columns of the layer's weight; None where the change does not say it."""
        return self.sizes["b"] * self.sizes["d"] if self.algo == "lokr" else self.sizes.get("i")

    @property
    def rank(self) -> int | None:
        """What alpha is divided by; None where alpha has no such meaning."""
        return find_rank(self.build_sizes())

    @property
    def is_scaled(self) -> bool:
        """Whether alpha has a meaning: a scale, or the limit of turns."""
        return self.rank is not None or self.algo in _TURNS

    @property
    def size(self) -> str:
        """Rank or size of blocks, for a person."""
        return str(self.rank) if self.rank is not None else f"blocks of {self.sizes['s']}" if self.algo in _TURNS else "whole"


def build_change(stem: str, tensors: Mapping[str, Entry], *, where: str) -> LayerChange:
    """The change that these tensors of one layer are, `alpha` among them. Raises AdapterError where they do not belong together.

    `stem` is what the file calls the layer, `where` the file.
    """
    own = {name: entry for name, entry in tensors.items() if name != ALPHA}
    algo = _find_algo(own)
    strange = [name for name in own if algo is None or name not in (*_SHAPES[algo], LENGTHS)]
    if algo is None or strange:
        raise _build_error(
            "The file holds tensors that weber does not know, or that belong to different forms of LyCORIS.",
            stem,
            own if algo is None else {name: own[name] for name in strange},
            where=where,
            expected="lokr, loha, lora, full, diag-oft, boft or glora for linear layers, one for each layer",
        )
    there = [sorted(set(own) & {name for one in group for name in one}) for group in _NEEDED[algo]]
    missing = [group for group, names in zip(_NEEDED[algo], there, strict=True) if names not in map(sorted, group)]
    if missing:
        needed = " or ".join(" with ".join(one) for one in missing[0])
        raise _build_error(f"A layer lacks tensors of its form, which is {algo}.", stem, own, where=where, expected=needed)
    for name, entry in own.items():
        if not entry.dtype.is_floating_point or entry.is_quantized:
            raise _build_error("The numbers of a layer are quantized.", stem, {name: entry}, where=where, expected="fp32, bf16, fp16, fp8")
    sizes = _find_sizes(algo, own)
    change = None if sizes is None else LayerChange(algo, own, 0.0, sizes)
    if change is None or not _is_sound(change):
        expected = ", ".join(f"{name} ({', '.join(axes)})" for name, axes in _SHAPES[algo].items() if name in own)
        raise _build_error("The tensors of a layer do not fit each other.", stem, own, where=where, expected=f"axes {expected}")
    alpha = _read_alpha(stem, tensors.get(ALPHA), where=where)
    if alpha is None or not change.is_scaled:
        return replace(change, alpha=float(change.rank or 0))
    if not math.isfinite(alpha):
        raise _build_error("The alpha of a layer is not finite.", stem, {ALPHA: tensors[ALPHA]}, where=where, expected="a number")
    return replace(change, alpha=alpha)


def take_rows(change: LayerChange, ranges: Ranges) -> LayerChange | None:
    """The change of these rows of the layer alone, in this order; None where the form has no such parts."""
    if tuple(ranges) == ((0, change.num_outputs),):
        return change
    is_all = sum(stop - start for start, stop in ranges) == change.num_outputs
    lengths = change.tensors.get(LENGTHS)
    if not is_all and (change.algo in _TURNS and change.alpha > 0 or lengths is not None and lengths.shape[0] == 1 < change.num_outputs):
        return None  # what they mean depends on all rows
    unit, letter = 1, "o"
    if change.algo == "lokr":
        unit, letter = (1, "c") if change.sizes["a"] == 1 else (change.sizes["c"], "a")
    elif change.algo == "boft":
        return None
    elif change.algo == "diag-oft":
        unit, letter = change.sizes["s"], "n"
    if any(bound % unit for bounds in ranges for bound in bounds):
        return None
    axes = {**_SHAPES[change.algo], LENGTHS: "1i" if lengths is not None and lengths.shape[0] == 1 else "o1"}
    tensors = {}
    for name, entry in change.tensors.items():
        step = unit if axes[name].startswith(letter) else 1 if axes[name].startswith("o") else None
        tensors[name] = entry if step is None else _cut(entry, [(start // step, stop // step) for start, stop in ranges])
    sizes = _find_sizes(change.algo, tensors)
    assert sizes is not None
    return replace(change, tensors=tensors, sizes=sizes)


def count_factors(changes: Iterable[LayerChange]) -> Counter[str]:
    """With which `factor` LyCORIS cuts layers of that size so, and how many of the changes that are Kronecker products; as few factors as
    explain all of them. One that no factor explains is counted as `none`."""
    left = [one for one in changes if one.algo == "lokr"]
    found: Counter[str] = Counter()
    while left:
        candidates = [*sorted({one.sizes[letter] for one in left for letter in "ab"}), -1]
        best = max(candidates, key=lambda factor: sum(_has_factor(one, factor) for one in left))
        cut = [one for one in left if _has_factor(one, best)]
        found[str(best) if cut else "none"] += len(cut or left)
        left = [one for one in left if not _has_factor(one, best)] if cut else []
    return found


def _has_factor(change: LayerChange, factor: int) -> bool:
    from lycoris.functional import factorization

    sizes = change.sizes
    outputs, inputs = (factorization(size, factor) for size in (sizes["a"] * sizes["c"], sizes["b"] * sizes["d"]))
    return bool(outputs == (sizes["a"], sizes["c"]) and inputs == (sizes["b"], sizes["d"]))


def list_ranges(rows: Sequence[int], *, swapped: bool = False) -> list[Ranges]:
    """Where the rows of each of several layers stand in one that holds them all; `swapped`: in halves that change places."""
    ranges: list[Ranges] = []
    start = 0
    for num in rows:
        ranges.append([(start + num // 2, start + num), (start, start + num // 2)] if swapped else [(start, start + num)])
        start += num
    return ranges


def _find_algo(tensors: Mapping[str, Entry]) -> str | None:
    if "oft_blocks" in tensors:
        return "boft" if len(tensors["oft_blocks"].shape) == 4 else "diag-oft"
    return next((algo for algo, shapes in _SHAPES.items() if algo not in _TURNS and not shapes.keys().isdisjoint(tensors)), None)


def _find_sizes(algo: str, tensors: Mapping[str, Entry]) -> dict[str, int] | None:
    """The size of each axis; None where two tensors do not agree on one."""
    sizes = {"1": 1}
    for name, entry in tensors.items():
        if name == LENGTHS:
            continue
        axes = _SHAPES[algo][name]
        if len(entry.shape) != len(axes):
            return None
        for letter, size in zip(axes, entry.shape, strict=True):
            if size < 1 or sizes.setdefault(letter, size) != size:
                return None
    return sizes


def _is_sound(change: LayerChange) -> bool:
    """Whether numbers of blocks, and lengths of a DoRA, are those of the layer."""
    sizes, lengths = change.sizes, change.tensors.get(LENGTHS)
    if change.algo in _TURNS and sizes.get("o", change.num_outputs) != change.num_outputs:
        return False
    if change.algo == "boft" and (sizes["n"].bit_count() != 1 or sizes["m"] != sizes["n"].bit_length() or sizes["s"] % 2):
        return False
    if lengths is None:
        return True
    return change.num_inputs is not None and lengths.shape in ((change.num_outputs, 1), (1, change.num_inputs))


def _read_alpha(stem: str, entry: Entry | None, *, where: str) -> float | None:
    if entry is None:
        return None
    if math.prod(entry.shape) != 1 or entry.dtype == torch.bool:
        raise _build_error("The alpha of a layer is not a number.", stem, {ALPHA: entry}, where=where, expected="one number")
    return float(entry.read().float().item())


def _cut(entry: Entry, ranges: Ranges) -> Entry:
    num = sum(stop - start for start, stop in ranges)
    return replace(entry, shape=(num, *entry.shape[1:]), read=partial(_read_rows, entry, ranges))


def _read_rows(entry: Entry, ranges: Ranges) -> Tensor:
    tensor = entry.read()
    return torch.cat([tensor[start:stop] for start, stop in ranges])


def _build_error(what: str, stem: str, tensors: Mapping[str, Entry], *, where: str, expected: str) -> AdapterError:
    shown = ", ".join(f"{name} {'x'.join(map(str, entry.shape)) or '(one number)'}" for name, entry in tensors.items())
    dtypes = {str(entry.dtype).removeprefix("torch.") for entry in tensors.values()}
    return AdapterError(
        what,
        got=f"{where}: {stem} with {shown} in {', '.join(sorted(dtypes))}",
        expected=expected,
        fix="save the file again with the program that made it",
    )
