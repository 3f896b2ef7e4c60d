"""What adapters add to layers that share an input, all of them at once, and the way back.

    spread:  out[:, c_i : c_i + O_i] = bias_i + scale_i hidden[:, s_i : s_i + R_i] B_i^T
    gather:  hidden_grad[:, s_i : s_i + R_i] = scale_i grad[:, c_i : c_i + O_i] B_i

Layers stand beside each other in the output in the order of their B's (`ups`), and in the hidden tensor where `starts` says. A layer
without adapters has a B of rank 0, which says how wide it is. Of a layer with several adapters, which lie beside each other in the hidden
tensor, all B's are given as one (`join_ups`).

Legend: N rows, O outputs of a layer, R its rank.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from itertools import accumulate, pairwise
from typing import Any

import torch
from torch import Tensor

from weber.kernels.library import define

Piece = tuple[int, slice, slice]


def join_ups(ups_OR: Sequence[Tensor], scales: Sequence[float]) -> tuple[Tensor, float]:
    """The B's of one layer's adapters as one, and its scale."""
    if len(ups_OR) == 1:
        return ups_OR[0], scales[0]
    return torch.cat([up * scale for up, scale in zip(ups_OR, scales, strict=True)], dim=1), 1.0


def spread_plain(
    hidden_NR: Tensor,
    ups_OR: Sequence[Tensor],
    biases: Sequence[Tensor | None],
    scales: Sequence[float],
    starts: Sequence[int],
    out: Tensor,
) -> None:
    """Writes all of `out` (N, sum of O)."""
    for up, bias, scale, start, place in zip(ups_OR, biases, scales, starts, list_places(map(len, ups_OR)), strict=True):
        part, own = out[:, place], None if bias is None else bias.to(out.dtype)
        if up.shape[1] == 0:
            part.zero_() if own is None else part.copy_(own)
            continue
        hidden = hidden_NR[:, start : start + up.shape[1]]
        torch.addmm(part if own is None else own, hidden, up.to(out.dtype).t(), beta=float(own is not None), alpha=scale, out=part)


def gather_plain(grads: Sequence[Tensor], ups_OR: Sequence[Tensor], scales: Sequence[float], starts: Sequence[int]) -> Tensor:
    """The gradient (N, sum of R) of the hidden tensor. `grads`: that of the output, cut anywhere between columns."""
    hidden_grad = _build_hidden(grads, ups_OR, scales, starts)
    for up, scale, start, pieces in zip(ups_OR, scales, starts, cut(map(len, ups_OR), [grad.shape[1] for grad in grads]), strict=True):
        part = hidden_grad[:, start : start + up.shape[1]]
        if len(pieces) == 1:
            ((number, columns, _),) = pieces
            torch.addmm(part, grads[number][:, columns], up.to(part.dtype), beta=0, alpha=scale, out=part)
        elif up.shape[1]:  # rounded once, though it is a sum
            wide = torch.promote_types(part.dtype, torch.float32)
            sums = [grads[number][:, columns].to(wide) @ up[rows].to(part.dtype).to(wide) for number, columns, rows in pieces]
            part.copy_(torch.stack(sums).sum(0).mul_(scale))
    return hidden_grad


def list_places(outputs: Iterable[int]) -> list[slice]:
    """Which columns of the output are whose, of layers of so many outputs."""
    return [slice(start, stop) for start, stop in pairwise(accumulate(outputs, initial=0))]


def cut(outputs: Iterable[int], widths: Sequence[int]) -> list[list[Piece]]:
    """For each layer: in which pieces of the output it lies, in which columns of them, and which of its own outputs those are."""
    bounds = list(accumulate(widths, initial=0))
    found: list[list[Piece]] = []
    for place in list_places(outputs):
        pieces: list[Piece] = []
        for number, (start, stop) in enumerate(pairwise(bounds)):
            first, last = max(start, place.start), min(stop, place.stop)
            if first < last:
                pieces.append((number, slice(first - start, last - start), slice(first - place.start, last - place.start)))
        found.append(pieces)
    return found


def _build_hidden(grads: Sequence[Tensor], ups_OR: Sequence[Tensor], scales: Sequence[float], starts: Sequence[int]) -> Tensor:
    return grads[0].new_empty((len(grads[0]), sum(up.shape[1] for up in ups_OR)))


spread = define(
    "spread",
    "(Tensor hidden, Tensor[] ups, Tensor?[] biases, float[] scales, int[] starts, Tensor(a!) out) -> ()",
    plain=spread_plain,
    fake=lambda hidden, ups, biases, scales, starts, out: None,
    gpu="lowrank",
)
gather = define(
    "gather",
    "(Tensor[] grads, Tensor[] ups, float[] scales, int[] starts) -> Tensor",
    plain=gather_plain,
    fake=_build_hidden,
    gpu="lowrank",
)


def _count_spread(hidden: Any, ups: Any, *rest: Any, **others: Any) -> int:
    return 2 * int(hidden[0]) * sum(int(outputs) * int(rank) for outputs, rank in ups)


def _count_gather(grads: Any, ups: Any, *rest: Any, **others: Any) -> int:
    return 2 * int(grads[0][0]) * sum(int(outputs) * int(rank) for outputs, rank in ups)


FLOPS = {torch.ops.weber.spread: _count_spread, torch.ops.weber.gather: _count_gather}
"""From shapes. Whoever counts tells PyTorch's counter (`memory/simulate.py`): it imports Triton where that is installed."""
