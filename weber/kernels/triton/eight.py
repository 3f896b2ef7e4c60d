"""`weber/kernels/eight.py` on a GPU: a program rounds a row, or several narrow ones, which it reads twice, the second time from the cache.

Legend: N rows, I inputs, O outputs.
"""

from __future__ import annotations

import torch
import triton
import triton.language as tl
from torch import Tensor

from weber.kernels.eight import TINY
from weber.kernels.triton.tiles import count_warps, cover, lay

_TILE = 2048
"""Elements that a program has in hand."""


def round_rows(x_NI: Tensor, factor_I: Tensor | None, largest: float, is_whole: bool) -> tuple[Tensor, Tensor]:
    """See `round_rows_plain`."""
    x_NI = lay(x_NI)
    num_rows, width = x_NI.shape
    codes = torch.empty((num_rows, width), dtype=torch.int8 if is_whole else torch.float8_e4m3fn, device=x_NI.device)
    scale = torch.empty((num_rows, 1), dtype=torch.float32, device=x_NI.device)
    columns = cover(width, at_most=_TILE)
    rows = max(_TILE // columns, 1)
    _round_rows[(triton.cdiv(num_rows, rows),)](
        *(x_NI, None if factor_I is None else factor_I.contiguous(), codes, scale, x_NI.stride(0), num_rows, width, largest, TINY),
        IS_WHOLE=is_whole,
        ROWS=rows,
        COLUMNS=columns,
        num_warps=count_warps(rows * columns),
    )
    return codes if is_whole else codes.view(torch.uint8), scale


def rescale(product_NO: Tensor, row_scale_N1: Tensor, column_scale_O: Tensor | None, out_NO: Tensor, is_begun: bool) -> None:
    """See `rescale_plain`."""
    product_NO = lay(product_NO)
    num_rows, width = product_NO.shape
    columns = cover(width, at_most=_TILE // 2)
    rows = max(_TILE // columns, 1)
    _rescale[(triton.cdiv(num_rows, rows), triton.cdiv(width, columns))](
        *(product_NO, row_scale_N1.contiguous(), None if column_scale_O is None else column_scale_O.contiguous(), out_NO),
        *(product_NO.stride(0), out_NO.stride(0), num_rows, width),
        IS_BEGUN=is_begun,
        ROWS=rows,
        COLUMNS=columns,
        num_warps=count_warps(rows * columns),
    )


@triton.jit
def _round_rows(
    x,
    factor,
    codes,
    scale,
    x_row,
    num_rows,
    width,
    largest,
    tiny,
    IS_WHOLE: tl.constexpr,
    ROWS: tl.constexpr,
    COLUMNS: tl.constexpr,
):
    row = (tl.program_id(0) * ROWS + tl.arange(0, ROWS)[:, None]).to(tl.int64)
    column = tl.arange(0, COLUMNS)[None, :]
    most = tl.zeros([ROWS, COLUMNS], dtype=tl.float32)
    for start in range(0, width, COLUMNS):
        place = start + column
        is_there = (row < num_rows) & (place < width)
        value = tl.load(x + row * x_row + place, mask=is_there, other=0).to(tl.float32)
        if factor is not None:
            value *= tl.load(factor + place, mask=place < width, other=0).to(tl.float32)
        most = tl.maximum(most, tl.abs(value), propagate_nan=tl.PropagateNan.ALL)
    is_number = tl.min((most == most).to(tl.int32), axis=1, keep_dims=True) == 1
    step = tl.maximum(tl.div_rn(tl.max(most, axis=1, keep_dims=True), tl.zeros([ROWS, 1], dtype=tl.float32) + largest), tiny)
    step = tl.where(is_number, step, float("nan"))
    tl.store(scale + row, step, mask=row < num_rows)
    for start in range(0, width, COLUMNS):
        place = start + column
        is_there = (row < num_rows) & (place < width)
        value = tl.load(x + row * x_row + place, mask=is_there, other=0).to(tl.float32)
        if factor is not None:
            value *= tl.load(factor + place, mask=place < width, other=0).to(tl.float32)
        code = tl.div_rn(value, tl.zeros([ROWS, COLUMNS], dtype=tl.float32) + step)
        if IS_WHOLE:
            code = (code + 12582912.0) - 12582912.0  # 1.5 * 2^23: to the nearest whole number, and of two to the even one
        tl.store(codes + row * width + place, code.to(codes.dtype.element_ty), mask=is_there)


@triton.jit
def _rescale(
    product,
    row_scale,
    column_scale,
    out,
    product_row,
    out_row,
    num_rows,
    width,
    IS_BEGUN: tl.constexpr,
    ROWS: tl.constexpr,
    COLUMNS: tl.constexpr,
):
    row = (tl.program_id(0) * ROWS + tl.arange(0, ROWS)[:, None]).to(tl.int64)
    column = tl.program_id(1) * COLUMNS + tl.arange(0, COLUMNS)[None, :]
    is_there = (row < num_rows) & (column < width)
    found = tl.load(product + row * product_row + column, mask=is_there, other=0).to(tl.float32)
    found *= tl.load(row_scale + row, mask=row < num_rows, other=0)
    if column_scale is not None:
        found *= tl.load(column_scale + column, mask=column < width, other=0).to(tl.float32)
    place = out + row * out_row + column
    if IS_BEGUN:
        found += tl.load(place, mask=is_there, other=0).to(tl.float32)
    tl.store(place, found.to(out.dtype.element_ty), mask=is_there)
