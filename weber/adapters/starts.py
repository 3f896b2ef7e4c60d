"""Where adapters start that do not start at random: at directions of the layer's own weight, or of its inputs.

| start | of what | its change scale * B A is |
|---|---|---|
| pissa | the weight (Meng et al. 2024) | its largest directions, the singular values shared by A and B |
| olora | the weight (Büyükakyüz 2024) | the first columns of Q and rows of R |
| loftq | what quantization took from the weight (Li et al. 2023, one step) | its largest directions |
| eva | the layer's inputs (Paischer et al. 2024) | zero: A has their main directions, in equal ranks for all layers |

The formulas are PEFT's (`tuners/lora/layer.py`, `utils/loftq_utils.py`, `tuners/lora/eva.py`), but that loftq, where PEFT forgets the
scale, divides by it. What these starts would take from the weight is taken away beside it (`lora.py`), so no weight changes.

Legend: R rank, I inputs, O outputs.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable
from functools import partial
from math import sqrt
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor, nn

from weber.adapters.extract import find_directions
from weber.adapters.factors import Factors
from weber.adapters.lora import list_starts
from weber.progress import Progress, ignore_progress

if TYPE_CHECKING:
    from peft.utils.incremental_pca import IncrementalPCA

ReadPair = Callable[[str], tuple[Tensor, Tensor]]
"""Gives the original weight (O, I) of a layer, and that which the layer computes with."""

_SEED = 0


def write_shifted_start(model: nn.Module, init: str, *, read: ReadPair, progress: Progress = ignore_progress) -> None:
    """Write a start of pissa, olora or loftq into adapters and into what is taken away beside them.

    A layer of fewer directions than the rank has the rest as it was drawn, and so has one that lost nothing to quantization.
    """
    starts = list_starts(model)
    for number, (name, (own, taken)) in enumerate(starts.items()):
        progress("finding where adapters start", number, len(starts))
        assert taken is not None
        weight, computed = read(name)
        down, up = _BUILDERS[init](weight.float(), computed.float(), own)
        rank = len(down)
        for one in (own, taken):
            one.down[:rank].copy_(down)
            one.up[:, :rank].copy_(up)
    progress("finding where adapters start", len(starts), len(starts))


def write_input_start(model: nn.Module, passes: Iterable[object]) -> None:
    """Give each adapter's A the main directions of its layer's inputs, which are seen in `passes`: each runs the model once.

    Of a layer with fewer inputs than the rank the rest of A is as it was drawn.
    """
    seen = {name: _Inputs(own.rank) for name, (own, _) in list_starts(model).items()}
    hooks = [model.get_submodule(name).register_forward_pre_hook(partial(_see, inputs)) for name, inputs in seen.items()]
    try:
        for _ in passes:
            pass
    finally:
        for hook in hooks:
            hook.remove()
    for name, (own, _) in list_starts(model).items():
        found = seen[name].build_directions()
        if found is not None:
            own.down[: len(found)].copy_(found)


class _Inputs:
    """The main directions of what goes into a layer, found piece by piece."""

    def __init__(self, rank: int) -> None:
        self._rank, self._rows = rank, torch.empty(0)
        self._pca: IncrementalPCA | None = None

    def see(self, x: Tensor) -> None:
        """Inputs (..., I). Few of them wait for more."""
        rows = x.detach().flatten(0, -2).float()
        self._rows = rows if not len(self._rows) else torch.cat([self._rows, rows])
        rank = min(self._rank, rows.shape[1])
        if len(self._rows) >= 2 * rank:
            self._fit(rank)

    def build_directions(self) -> Tensor | None:
        """Up to R of them (at most R, I), orthonormal; None where nothing was seen."""
        if self._pca is None and len(self._rows):
            self._fit(min(self._rank, *self._rows.shape))
        return None if self._pca is None else self._pca.components_

    def _fit(self, rank: int) -> None:
        if self._pca is None:
            from peft.utils.incremental_pca import IncrementalPCA

            is_wide = self._rows.shape[1] >= 4 * rank and len(self._rows) >= 2 * rank
            self._pca = IncrementalPCA(n_components=rank, lowrank=is_wide, lowrank_seed=_SEED)
        self._pca.partial_fit(self._rows)  # type: ignore[no-untyped-call]
        self._rows = self._rows[:0]


def _see(inputs: _Inputs, module: nn.Module, args: tuple[Any, ...]) -> None:
    inputs.see(args[0])


def _build_pissa(weight: Tensor, computed: Tensor, own: Factors) -> tuple[Tensor, Tensor]:
    return _build_directions(weight, own)


def _build_olora(weight: Tensor, computed: Tensor, own: Factors) -> tuple[Tensor, Tensor]:
    """The first columns of Q depend on as many columns of the weight, so the rest need not be decomposed."""
    basis = torch.linalg.qr(weight[:, : own.rank])[0]
    return basis.T @ weight, basis


def _build_loftq(weight: Tensor, computed: Tensor, own: Factors) -> tuple[Tensor, Tensor]:
    lost = weight - computed.to(weight.device)
    return _build_directions(lost, own) if lost.any() else (own.down[:0], own.up[:, :0])


def _build_directions(matrix: Tensor, own: Factors) -> tuple[Tensor, Tensor]:
    """A and B with scale * B A the largest directions of a matrix (O, I)."""
    with torch.random.fork_rng(devices=[matrix.device] if matrix.is_cuda else []):
        torch.manual_seed(_SEED)
        left, values, right = find_directions(matrix, own.rank)
    root = values[: own.rank].sqrt() / sqrt(own.scale)
    return root[:, None] * right[: own.rank], left[:, : own.rank] * root


_BUILDERS = {"pissa": _build_pissa, "olora": _build_olora, "loftq": _build_loftq}
