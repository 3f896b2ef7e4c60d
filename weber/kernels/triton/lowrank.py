"""`weber/kernels/lowrank.py` on a GPU: one launch for all layers.

Triton takes no lists of pointers. The B's are small (a thousandth of the output), so they are put below each other first, unless they lie
so already; what is where says a small table on the device, which is made once for each set of layers, so that no later step waits for it.
Pieces of the gradient are large: their pointers are arguments, four of them, and further pieces are joined.

What is in the table, and `up_row`, is counted in the largest unit that divides all of it: so the compiler sees how far addresses are
aligned, and reads many numbers at once.

Legend: N rows, O outputs of a layer, R its rank.
"""

from __future__ import annotations

from collections.abc import Sequence
from functools import lru_cache
from math import gcd

import torch
import triton
import triton.language as tl
from torch import Tensor
from torch.nn import functional

from weber.kernels.lowrank import cut
from weber.kernels.triton.tiles import cover, lay

_ROWS, _COLUMNS = 64, 128
"""Of the tiles of `spread`."""
_ROWS_BACK = 32
"""Of those of `gather`: few, so that a layer keeps many programs busy."""
_SHARED_BYTES = 16384
"""Of the B's that a program has at a time; Triton fetches two or three times as much ahead, and small cards have 99 KiB."""
_MAX_PIECES = 4
_UNIT = 16
Shapes = tuple[tuple[int, int], ...]


def spread(
    hidden_NR: Tensor,
    ups_OR: Sequence[Tensor],
    biases: Sequence[Tensor | None],
    scales: Sequence[float],
    starts: Sequence[int],
    out: Tensor,
) -> None:
    """See `spread_plain`."""
    assert out.stride(-1) == 1, "the result is written in place"
    hidden_NR, shapes = lay(hidden_NR), tuple((up.shape[0], up.shape[1]) for up in ups_OR)
    rank = max(shape[1] for shape in shapes)
    with_bias = tuple(bias is not None for bias in biases)
    table, strengths, unit = _tell_spread(shapes, with_bias, tuple(scales), tuple(starts), out.device)
    ups, own = _stack(ups_OR, out), [bias for bias in biases if bias is not None]
    _spread[(triton.cdiv(len(out), _ROWS), len(table))](
        *(hidden_NR, ups, torch.cat(own) if own else None, out, table, strengths),
        *(hidden_NR.stride(0), out.stride(0), len(out), rank // unit),
        UNIT=unit,
        ROWS=_ROWS,
        COLUMNS=_COLUMNS,
        DEPTH=min(cover(rank, at_least=16), _find_depth(ups, _COLUMNS)),
        num_warps=2 * out.element_size(),  # in fp32 nothing is multiplied by tensor cores, and each number takes registers
    )


def gather(grads: Sequence[Tensor], ups_OR: Sequence[Tensor], scales: Sequence[float], starts: Sequence[int]) -> Tensor:
    """See `gather_plain`."""
    grads = [lay(grad) for grad in grads]
    grads[_MAX_PIECES - 1 :] = [torch.cat(grads[_MAX_PIECES - 1 :], dim=1)] if len(grads) > _MAX_PIECES else grads[_MAX_PIECES - 1 :]
    shapes = tuple((up.shape[0], up.shape[1]) for up in ups_OR)
    rank = max(shape[1] for shape in shapes)
    out = grads[0].new_empty((len(grads[0]), sum(shape[1] for shape in shapes)))
    if rank == 0:
        return out
    layers, places, strengths, unit = _tell_gather(
        shapes, tuple(grad.shape[1] for grad in grads), tuple(scales), tuple(starts), out.device
    )
    ups, columns = _stack(ups_OR, out), cover(rank, at_least=16)
    given = [*grads, *[grads[0]] * (_MAX_PIECES - len(grads))]
    _gather[(triton.cdiv(len(out), _ROWS_BACK), len(shapes))](
        *(*given, ups, out, layers, places, strengths),
        *(*(grad.stride(0) for grad in given), out.stride(0), len(out), rank // unit),
        PIECES=len(grads),
        UNIT=unit,
        ROWS=_ROWS_BACK,
        COLUMNS=columns,
        DEPTH=_find_depth(ups, columns),
        num_warps=4,
    )
    return out


def _find_depth(ups: Tensor, columns: int) -> int:
    """How many numbers are added up at a time."""
    return min(max(_SHARED_BYTES // (columns * ups.element_size()), 16), 64)


def _stack(ups_OR: Sequence[Tensor], like: Tensor) -> Tensor:
    """B's below each other (sum of O, largest R), but for those of rank 0."""
    ups = [up for up in ups_OR if up.shape[1]]
    if not ups:
        return like
    first, rank = ups[0], max(up.shape[1] for up in ups)
    if any(up.shape[1] != rank for up in ups):
        return torch.cat([functional.pad(up, (0, rank - up.shape[1])) for up in ups])
    end = first.data_ptr()
    for up in ups:
        if up.data_ptr() != end or not up.is_contiguous() or up.dtype != first.dtype:
            return torch.cat(ups)
        end += up.nbytes
    return first  # the others lie behind it


@lru_cache(maxsize=1024)
def _tell_spread(
    shapes: Shapes, with_bias: tuple[bool, ...], scales: tuple[float, ...], starts: tuple[int, ...], device: torch.device
) -> tuple[Tensor, Tensor, int]:
    """A row per tile of columns: its first output, O, R, place in the output, start in the hidden tensor, B's first row, bias or -1."""
    rows, strengths = [], []
    place = below = bias = 0
    for (outputs, rank), has_bias, scale, start in zip(shapes, with_bias, scales, starts, strict=True):
        for first in range(0, outputs, _COLUMNS):
            rows.append((first, outputs, rank, place, start if rank else 0, below, bias if has_bias else -1))
            strengths.append(scale)
        place, below, bias = place + outputs, below + outputs * (rank > 0), bias + outputs * has_bias
    unit = gcd(_UNIT, *(number for row in rows for number in row[:6]))
    table = [[*(number // unit for number in row[:6]), row[6]] for row in rows]
    return torch.tensor(table, dtype=torch.int32).to(device), torch.tensor(strengths).to(device), unit


@lru_cache(maxsize=1024)
def _tell_gather(
    shapes: Shapes, widths: tuple[int, ...], scales: tuple[float, ...], starts: tuple[int, ...], device: torch.device
) -> tuple[Tensor, Tensor, Tensor, int]:
    """A row per layer: R, start in the hidden tensor, B's first row; and per piece: first column there, first own output, how many."""
    layers, places, below = [], [], 0
    for (outputs, rank), start, pieces in zip(shapes, starts, cut((outputs for outputs, _ in shapes), widths), strict=True):
        layers.append((rank, start if rank else 0, below))
        found = {number: (columns.start, rows.start, rows.stop - rows.start) for number, columns, rows in pieces if rank}
        places.append([found.get(number, (0, 0, 0)) for number in range(len(widths))])
        below += outputs * (rank > 0)
    unit = gcd(_UNIT, *(number for row in layers for number in row), *(number for row in places for one in row for number in one))
    rows = [[number // unit for number in row] for row in layers]
    pieces_of = [[[number // unit for number in one] for one in row] for row in places]
    return (
        torch.tensor(rows, dtype=torch.int32).to(device),
        torch.tensor(pieces_of, dtype=torch.int32).to(device),
        torch.tensor(scales, dtype=torch.float32).to(device),
        unit,
    )


@triton.jit
def _spread(
    hidden,
    ups,
    biases,
    out,
    table,
    scales,
    hidden_row,
    out_row,
    num_rows,
    up_row,
    UNIT: tl.constexpr,
    ROWS: tl.constexpr,
    COLUMNS: tl.constexpr,
    DEPTH: tl.constexpr,
):
    row = (tl.program_id(0) * ROWS + tl.arange(0, ROWS)[:, None]).to(tl.int64)
    own = table + tl.program_id(1) * 7
    first, outputs, rank = tl.load(own) * UNIT, tl.load(own + 1) * UNIT, tl.load(own + 2) * UNIT
    place, start, below = tl.load(own + 3) * UNIT, tl.load(own + 4) * UNIT, tl.load(own + 5) * UNIT
    output = first + tl.arange(0, COLUMNS)
    is_output, is_row = output < outputs, row < num_rows
    up_step = up_row * UNIT
    total = tl.zeros((ROWS, COLUMNS), dtype=tl.float32)
    for done in range(0, rank, DEPTH):
        depth = done + tl.arange(0, DEPTH)
        is_depth = depth < rank
        part = tl.load(hidden + row * hidden_row + start + depth[None, :], mask=is_row & is_depth[None, :], other=0)
        up = tl.load(ups + (below + output)[:, None] * up_step + depth[None, :], mask=is_output[:, None] & is_depth[None, :], other=0)
        total = tl.dot(part, tl.trans(up.to(hidden.dtype.element_ty)), total, input_precision="ieee")
    total *= tl.load(scales + tl.program_id(1))
    if biases is not None:
        bias = tl.load(own + 6)
        total += tl.load(biases + bias + output, mask=is_output & (bias >= 0), other=0).to(tl.float32)[None, :]
    tl.store(out + row * out_row + place + output[None, :], total.to(out.dtype.element_ty), mask=is_row & is_output[None, :])


@triton.jit
def _gather(
    grad_0,
    grad_1,
    grad_2,
    grad_3,
    ups,
    out,
    layers,
    places,
    scales,
    row_0,
    row_1,
    row_2,
    row_3,
    out_row,
    num_rows,
    up_row,
    PIECES: tl.constexpr,
    UNIT: tl.constexpr,
    ROWS: tl.constexpr,
    COLUMNS: tl.constexpr,
    DEPTH: tl.constexpr,
):
    row = (tl.program_id(0) * ROWS + tl.arange(0, ROWS)[:, None]).to(tl.int64)
    layer = layers + tl.program_id(1) * 3
    rank, start, below = tl.load(layer) * UNIT, tl.load(layer + 1) * UNIT, tl.load(layer + 2) * UNIT
    place = places + tl.program_id(1) * (3 * PIECES)
    up_step = up_row * UNIT
    ups += below * up_step
    total = tl.zeros((ROWS, COLUMNS), dtype=tl.float32)
    total = _add(total, grad_0, row_0, row, num_rows, place, ups, up_step, rank, UNIT, COLUMNS, DEPTH)
    if PIECES > 1:
        total = _add(total, grad_1, row_1, row, num_rows, place + 3, ups, up_step, rank, UNIT, COLUMNS, DEPTH)
    if PIECES > 2:
        total = _add(total, grad_2, row_2, row, num_rows, place + 6, ups, up_step, rank, UNIT, COLUMNS, DEPTH)
    if PIECES > 3:
        total = _add(total, grad_3, row_3, row, num_rows, place + 9, ups, up_step, rank, UNIT, COLUMNS, DEPTH)
    total *= tl.load(scales + tl.program_id(1))
    column = tl.arange(0, COLUMNS)[None, :]
    tl.store(out + row * out_row + start + column, total.to(out.dtype.element_ty), mask=(row < num_rows) & (column < rank))


@triton.jit
def _add(
    total,
    grad,
    grad_row,
    row,
    num_rows,
    place,
    ups,
    up_step,
    rank,
    UNIT: tl.constexpr,
    COLUMNS: tl.constexpr,
    DEPTH: tl.constexpr,
):
    column = tl.arange(0, COLUMNS)[None, :]
    first, output, num = tl.load(place) * UNIT, tl.load(place + 1) * UNIT, tl.load(place + 2) * UNIT
    for done in range(0, num, DEPTH):
        depth = done + tl.arange(0, DEPTH)
        is_depth = depth < num
        part = tl.load(grad + row * grad_row + first + depth[None, :], mask=(row < num_rows) & is_depth[None, :], other=0)
        up = tl.load(ups + (output + depth)[:, None] * up_step + column, mask=is_depth[:, None] & (column < rank), other=0)
        total = tl.dot(part, up.to(grad.dtype.element_ty), total, input_precision="ieee")
    return total
