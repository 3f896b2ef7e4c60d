"""A LoRA out of a whole fine-tune: the largest directions of what it changed, layer by layer."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from weber.adapters.factors import Factors
from weber.errors import AdapterError
from weber.families.finite import read_finite
from weber.families.tensors import Entry, Weights
from weber.progress import Progress, ignore_progress

_SMALL = 1024
"""Matrices with a side up to this are decomposed exactly; of larger ones the first directions are found, to fp32 accuracy."""
_SPARE, _ROUNDS = 16, 6
"""Directions beyond those wanted, and rounds of power iteration (Halko, Martinsson, Tropp 2011, algorithm 4.4)."""
_NUM_ROWS = 64
"""Rows of a matrix that are copied to fp64 at once."""


@dataclass(frozen=True)
class Extraction:
    """`kept`: the share of each layer's change, by energy, that its factors hold. `left_out`: changed tensors outside of the targets."""

    modules: dict[str, Factors]
    kept: dict[str, float]
    left_out: tuple[str, ...]


def build_extraction(
    base: Weights,
    tuned: Weights,
    *,
    modules: Sequence[str],
    rank: int | None = None,
    energy: float | None = None,
    progress: Progress = ignore_progress,
) -> Extraction:
    """What turns `base` into `tuned` (both under the library's names), in the layers `modules`.

    Each layer gets `rank` directions, or as many as hold the share `energy` of its change (at most `rank`). Layers without a change get
    none. While few directions are taken, two matrices are in memory at a time. Raises AdapterError where the two are different models, or
    equal in all of these layers, ModelError where a number of them is not finite.
    """
    assert rank is not None or energy is not None
    _check_models(base, tuned)
    wanted = {f"{module}.weight" for module in modules}
    found: dict[str, Factors] = {}
    kept: dict[str, float] = {}
    left_out = []
    for number, name in enumerate(base):
        progress("comparing the models", number, len(base))
        delta = _build_delta(name, base[name], tuned[name])
        if delta.any():
            module = name.removesuffix(".weight")
            if name in wanted:
                found[module], kept[module] = _decompose(delta, rank=rank or min(delta.shape), energy=energy or 1.0)
            else:
                left_out.append(name)
        del delta  # before the next one is there
    progress("comparing the models", len(base), len(base))
    if not found:
        raise AdapterError(
            "There is nothing to extract.",
            got=f"two models that are equal in all {len(wanted)} layers of the targets, and differ in {len(left_out)} other tensors",
            fix="check the two paths, or choose other targets",
        )
    return Extraction(found, kept, tuple(left_out))


def _build_delta(name: str, base: Entry, tuned: Entry) -> Tensor:
    """tuned - base in fp32."""
    return read_finite(name, base).to(torch.float32, copy=True).neg_().add_(read_finite(name, tuned))


def _decompose(delta: Tensor, *, rank: int, energy: float) -> tuple[Factors, float]:
    """The largest directions of a matrix, `rank` at most and no more than `energy` takes; and the share that they hold."""
    total = math.fsum(torch.linalg.vector_norm(rows, dtype=torch.float64).item() ** 2 for rows in torch.split(delta, _NUM_ROWS))
    rank = min(rank, *delta.shape)
    guess = rank if energy == 1 else min(rank, 64)
    while True:
        left, values, right = find_directions(delta, guess)
        shares = values.double().square().cumsum(0) / total
        if guess == rank or shares[guess - 1] >= energy:
            break
        guess = min(rank, 2 * guess)
    num = guess if energy == 1 else min(guess, int((shares[:guess] < energy).sum()) + 1)
    num = max(1, min(num, int((values[:num] > 0).sum())))
    root = values[:num].sqrt()
    up, down = left[:, :num] * root, root[:, None] * right[:num]
    return Factors(down.contiguous(), up.contiguous(), float(num)), min(1.0, float(shares[num - 1]))


def find_directions(delta: Tensor, rank: int) -> tuple[Tensor, Tensor, Tensor]:
    """U (O, K), S (K,) and V (K, I) of a matrix (O, I) with U S V near it: its largest directions, `rank` of them or more. On a CPU, or
    seeded by the caller, the same each time.
    """
    if min(delta.shape) <= max(_SMALL, 2 * rank):
        left, values, right = torch.linalg.svd(delta, full_matrices=False)
        return left, values, right
    with torch.random.fork_rng(devices=[]):
        torch.default_generator.manual_seed(0)
        left, values, right = torch.svd_lowrank(delta, q=rank + _SPARE, niter=_ROUNDS)
        return left, values, right.T


def _check_models(base: Weights, tuned: Weights) -> None:
    different = [name for name in {**base, **tuned} if name not in base or name not in tuned or base[name].shape != tuned[name].shape]
    if different:
        raise AdapterError(
            "The two models are not of one shape.",
            got=f"{len(different)} tensors that are in one only or have another shape, such as {different[0]}",
            fix="give a fine-tune and the model that it was made from",
        )
    entries = [*base.items(), *tuned.items()]
    packed = [name for name, one in entries if one.is_quantized or not one.dtype.is_floating_point or one.dtype.itemsize < 2]
    if packed:
        raise AdapterError("A model is quantized.", got=packed[0], expected="weights in bf16, fp16 or fp32", fix="give it unquantized")
