"""A LoRA with lower ranks: each layer of its file keeps the largest directions of its change."""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass

import torch
from torch import Tensor

from weber.adapters.compare import measure
from weber.adapters.factors import Factors
from weber.adapters.merge import decompose
from weber.adapters.names import ALPHA, DOWN, UP
from weber.adapters.read import FileLayer
from weber.errors import AdapterError
from weber.families.finite import is_finite
from weber.progress import Progress, ignore_progress

_NUM_WORST = 3
_EXACT = 1e-12
"""What sums of squares may lack of the whole."""


@dataclass(frozen=True)
class Cut:
    """What became of one layer; `error`: what is missing of its change, as a share of the change's length."""

    name: str
    rank_before: int
    rank: int
    error: float


@dataclass(frozen=True)
class Resized:
    """What became of a file; `str` of it is what `weber resize` prints. `error`: as of a layer, of all layers together."""

    cuts: tuple[Cut, ...]
    error: float

    @property
    def worst(self) -> list[Cut]:
        """The layers that have lost most, worst first."""
        return sorted((one for one in self.cuts if one.error > 0), key=lambda one: -one.error)

    def __str__(self) -> str:
        before, after = {one.rank_before for one in self.cuts}, {one.rank for one in self.cuts}
        num = sum(one.rank < one.rank_before for one in self.cuts)
        lines = [f"rank {_build_range(before)} -> {_build_range(after)}: {num} of {len(self.cuts)} layers are cut"]
        lines.append(f"relative error of the change: {self.error:.2%}")
        lines += [f"  {one.error:.2%}  {one.name} (rank {one.rank_before} -> {one.rank})" for one in self.worst[:_NUM_WORST]]
        return "\n".join(lines)


def build_resized(
    layers: Mapping[str, FileLayer], *, rank: int | None, energy: float | None, progress: Progress = ignore_progress
) -> tuple[dict[str, Factors], Resized]:
    """The layers with at most `rank` directions each, or with as many as hold the share `energy` of their change (at most `rank`).

    A layer whose rank is not lowered stays as it is, bit for bit; others have alpha = rank, and the precision that they had. Raises
    AdapterError for a DoRA, and where the precision has no room for the numbers.
    """
    dora = next((stem for stem, layer in layers.items() if layer.factors.magnitude is not None), None)
    if dora is not None:
        raise AdapterError(
            "A DoRA cannot be resized, because what it changes depends on the model.",
            got=f"magnitudes of {dora}",
            expected="a LoRA",
            fix="merge it into its model (`weber merge --base`), and take a LoRA out of that (`weber extract`)",
        )
    resized, cuts, lost, whole = {}, [], 0.0, 0.0
    for number, (stem, layer) in enumerate(layers.items()):
        progress("cutting the layers", number, len(layers))
        resized[stem] = one = _cut(stem, layer.factors, rank=rank, energy=energy)
        missing = measure(layer.factors, one)
        cuts.append(Cut(stem, layer.factors.rank, one.rank, missing.distance / missing.first if missing.first else 0.0))
        lost, whole = lost + missing.distance**2, whole + missing.first**2
    progress("cutting the layers", len(layers), len(layers))
    return resized, Resized(tuple(cuts), math.sqrt(lost / whole) if whole else 0.0)


def _cut(stem: str, factors: Factors, *, rank: int | None, energy: float | None) -> Factors:
    if energy is None and rank is not None and factors.rank <= rank:
        return factors
    left, values, right = decompose(factors)
    num = _count_directions(values, energy=1.0 if energy is None else energy)
    num = num if rank is None else min(num, rank)
    if num >= factors.rank:
        return factors
    root = values[:num].sqrt()
    up, down = (left[:, :num] * root).to(factors.up.dtype), (root[:, None] * right[:num]).to(factors.down.dtype)
    up[factors.up.eq(0).all(dim=1)] = 0  # rows of layers that do not change, in one that holds several
    if not (is_finite(up) and is_finite(down)):
        raise AdapterError(
            "The resized adapter would hold numbers that its precision has no room for.",
            got=f"{stem} with numbers up to {float(root[0]):.3g} in {str(factors.up.dtype).removeprefix('torch.')}",
            fix="save the adapter in bf16 or fp32 first",
        )
    return Factors(down.contiguous(), up.contiguous(), float(num))


def _count_directions(values: Tensor, *, energy: float) -> int:
    """How many of the largest directions hold that share of the change; 1 where there is no change."""
    squares = values.square()
    total = float(squares.sum())
    if total == 0:
        return 1
    return min(len(values), int((squares.cumsum(0) / total < energy - _EXACT).sum()) + 1)


def _build_range(ranks: set[int]) -> str:
    return str(*ranks) if len(ranks) == 1 else f"{min(ranks)} to {max(ranks)}"


def build_tensors(layers: Mapping[str, FileLayer], resized: Mapping[str, Factors]) -> dict[str, Tensor]:
    """The tensors of the layers that were cut, by their names in the file; an alpha is one number."""
    tensors: dict[str, Tensor] = {}
    for stem, layer in layers.items():
        one = resized[stem]
        if one is layer.factors:
            continue
        new = {DOWN: one.down, UP: one.up, ALPHA: torch.tensor(one.alpha)}
        tensors |= {name: new[role] for role, name in layer.names.items()}
    return tensors
