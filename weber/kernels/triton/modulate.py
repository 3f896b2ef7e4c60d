"""`weber/kernels/modulate.py` on a GPU: a row is read once, and never again for its mean or its variance.

A program does one row, or several narrow ones. Scale and shift come from the cache, where they stay: reading them where they are used
leaves registers to more programs at a time. Backward a thread holds half as many elements, because it holds more of each.

Legend: B batch, S tokens, D width.
"""

from __future__ import annotations

import torch
import triton
import triton.language as tl
from torch import Tensor

from weber.kernels.triton.tiles import build_like, count_warps, cover, lay, list_steps

_TILE = 2048
"""Elements that a program does at least."""


def modulate(x_BSD: Tensor, scale: Tensor, shift: Tensor, eps: float) -> tuple[Tensor, Tensor, Tensor]:
    """See `modulate_plain`."""
    x_BSD, scale, shift = lay(x_BSD), lay(scale), lay(shift)
    batch, tokens, width = x_BSD.shape
    out = build_like(x_BSD)
    mean, rstd = (torch.empty((batch, tokens, 1), dtype=torch.float32, device=x_BSD.device) for _ in range(2))
    columns, rows = _cut(width)
    _modulate[(triton.cdiv(tokens, rows), batch)](
        *(x_BSD, scale, shift, out, mean, rstd),
        *(*x_BSD.stride()[:2], *list_steps(scale, 2), *list_steps(shift, 2)),
        *(tokens, width, eps),
        ROWS=rows,
        COLUMNS=columns,
        num_warps=count_warps(rows * columns),
    )
    return out, mean, rstd


def modulate_backward(grad_BSD: Tensor, x_BSD: Tensor, scale: Tensor, mean: Tensor, rstd: Tensor, residual: Tensor | None) -> Tensor:
    """See `modulate_backward_plain`."""
    grad_BSD, x_BSD, scale = lay(grad_BSD), lay(x_BSD), lay(scale)
    residual = None if residual is None else lay(residual)
    batch, tokens, width = x_BSD.shape
    out = build_like(x_BSD)
    columns, rows = _cut(width)
    _modulate_backward[(triton.cdiv(tokens, rows), batch)](
        *(grad_BSD, x_BSD, scale, mean.contiguous(), rstd.contiguous(), residual, out),
        *(*grad_BSD.stride()[:2], *x_BSD.stride()[:2], *list_steps(scale, 2)),
        *((0, 0) if residual is None else residual.stride()[:2]),
        *(tokens, width),
        ROWS=rows,
        COLUMNS=columns,
        num_warps=count_warps(rows * columns, per_thread=8, at_most=32),
    )
    return out


def _cut(width: int) -> tuple[int, int]:
    """Columns and rows of a tile."""
    columns = cover(width)
    return columns, max(_TILE // columns, 1)


@triton.jit
def _modulate(
    x,
    scale,
    shift,
    out,
    mean,
    rstd,
    x_batch,
    x_token,
    scale_batch,
    scale_token,
    shift_batch,
    shift_token,
    tokens,
    width,
    eps,
    ROWS: tl.constexpr,
    COLUMNS: tl.constexpr,
):
    batch = tl.program_id(1).to(tl.int64)
    token = (tl.program_id(0) * ROWS + tl.arange(0, ROWS)[:, None]).to(tl.int64)
    column = tl.arange(0, COLUMNS)[None, :]
    is_token, is_column = token < tokens, column < width
    is_there = is_token & is_column

    row = tl.load(x + batch * x_batch + token * x_token + column, mask=is_there, other=0).to(tl.float32)
    middle = tl.sum(row, axis=1, keep_dims=True) / width
    centered = tl.where(is_column, row - middle, 0.0)
    inverse = tl.rsqrt(tl.sum(centered * centered, axis=1, keep_dims=True) / width + eps)
    place = batch * tokens + token
    tl.store(mean + place, middle, mask=is_token)
    tl.store(rstd + place, inverse, mask=is_token)

    factor = 1 + tl.load(scale + batch * scale_batch + token * scale_token + column, mask=is_there, other=0).to(tl.float32)
    summand = tl.load(shift + batch * shift_batch + token * shift_token + column, mask=is_there, other=0).to(tl.float32)
    result = centered * inverse * factor + summand
    tl.store(out + place * width + column, result.to(out.dtype.element_ty), mask=is_there)


@triton.jit
def _modulate_backward(
    grad,
    x,
    scale,
    mean,
    rstd,
    residual,
    out,
    grad_batch,
    grad_token,
    x_batch,
    x_token,
    scale_batch,
    scale_token,
    residual_batch,
    residual_token,
    tokens,
    width,
    ROWS: tl.constexpr,
    COLUMNS: tl.constexpr,
):
    batch = tl.program_id(1).to(tl.int64)
    first = (tl.program_id(0) * ROWS + tl.arange(0, ROWS)).to(tl.int64)
    token = first[:, None]
    column = tl.arange(0, COLUMNS)[None, :]
    is_there = (token < tokens) & (column < width)
    place = batch * tokens + token

    middle = tl.load(mean + batch * tokens + first, mask=first < tokens, other=0)[:, None]
    inverse = tl.load(rstd + batch * tokens + first, mask=first < tokens, other=0)[:, None]
    row = tl.load(x + batch * x_batch + token * x_token + column, mask=is_there, other=0).to(tl.float32)
    own = tl.load(grad + batch * grad_batch + token * grad_token + column, mask=is_there, other=0).to(tl.float32)
    own *= 1 + tl.load(scale + batch * scale_batch + token * scale_token + column, mask=is_there, other=0).to(tl.float32)
    normed = (row - middle) * inverse  # not 0 beyond the last column, but `own` is
    along = tl.sum(own * normed, axis=1, keep_dims=True) / width
    common = tl.sum(own, axis=1, keep_dims=True) / width
    result = inverse * (own - common - normed * along)
    if residual is not None:
        beside = residual + batch * residual_batch + token * residual_token + column
        result += tl.load(beside, mask=is_there, other=0).to(tl.float32)
    tl.store(out + place * width + column, result.to(out.dtype.element_ty), mask=is_there)
