"""`weber/kernels/modulate.py` on a GPU: a row is read once, and never again for its mean or its variance.

A program does several rows one after the other, so that a scale and a shift that hold for all tokens are read once for them. Narrow rows
are done several at a time.

Legend: B batch, S tokens, D width.
"""

from __future__ import annotations

import torch
import triton
import triton.language as tl
from torch import Tensor

from weber.kernels.triton.tiles import build_like, count_warps, cover, lay, list_steps

_TILE = 4096
"""Elements of narrow rows that are done at a time."""
_STEPS = 4


def modulate(x_BSD: Tensor, scale: Tensor, shift: Tensor, eps: float) -> tuple[Tensor, Tensor, Tensor]:
    """See `modulate_plain`."""
    x_BSD, scale, shift = lay(x_BSD), lay(scale), lay(shift)
    batch, tokens, width = x_BSD.shape
    out = build_like(x_BSD)
    mean, rstd = (torch.empty((batch, tokens, 1), dtype=torch.float32, device=x_BSD.device) for _ in range(2))
    columns, rows, steps = _cut(width)
    _modulate[(triton.cdiv(tokens, rows * steps), batch)](
        *(x_BSD, scale, shift, out, mean, rstd),
        *(*x_BSD.stride()[:2], *list_steps(scale, 2), *list_steps(shift, 2)),
        *(tokens, width, eps),
        IS_SHARED=scale.shape[1] == 1 and shift.shape[1] == 1,
        ROWS=rows,
        STEPS=steps,
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
    columns, rows, steps = _cut(width)
    _modulate_backward[(triton.cdiv(tokens, rows * steps), batch)](
        *(grad_BSD, x_BSD, scale, mean.contiguous(), rstd.contiguous(), residual, out),
        *(*grad_BSD.stride()[:2], *x_BSD.stride()[:2], *list_steps(scale, 2)),
        *((0, 0) if residual is None else residual.stride()[:2]),
        *(tokens, width),
        IS_SHARED=scale.shape[1] == 1,
        ROWS=rows,
        STEPS=steps,
        COLUMNS=columns,
        num_warps=count_warps(rows * columns),
    )
    return out


def _cut(width: int) -> tuple[int, int, int]:
    """Columns and rows of a tile, and how many tiles a program does."""
    columns = cover(width)
    return columns, max(_TILE // columns // 2, 1), _STEPS


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
    IS_SHARED: tl.constexpr,
    ROWS: tl.constexpr,
    STEPS: tl.constexpr,
    COLUMNS: tl.constexpr,
):
    batch = tl.program_id(1).to(tl.int64)
    first = tl.program_id(0) * ROWS * STEPS
    column = tl.arange(0, COLUMNS)[None, :]
    is_column = column < width
    scale += batch * scale_batch
    shift += batch * shift_batch
    if IS_SHARED:
        factor = 1 + tl.load(scale + column, mask=is_column, other=0).to(tl.float32)
        summand = tl.load(shift + column, mask=is_column, other=0).to(tl.float32)
    for step in range(STEPS):
        token = (first + step * ROWS + tl.arange(0, ROWS)[:, None]).to(tl.int64)
        is_token = token < tokens
        is_there = is_token & is_column
        row = tl.load(x + batch * x_batch + token * x_token + column, mask=is_there, other=0).to(tl.float32)
        if not IS_SHARED:
            factor = 1 + tl.load(scale + token * scale_token + column, mask=is_there, other=0).to(tl.float32)
            summand = tl.load(shift + token * shift_token + column, mask=is_there, other=0).to(tl.float32)
        middle = tl.sum(row, axis=1, keep_dims=True) / width
        centered = tl.where(is_column, row - middle, 0.0)
        inverse = tl.rsqrt(tl.sum(centered * centered, axis=1, keep_dims=True) / width + eps)
        place = batch * tokens + token
        tl.store(mean + place, middle, mask=is_token)
        tl.store(rstd + place, inverse, mask=is_token)
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
    IS_SHARED: tl.constexpr,
    ROWS: tl.constexpr,
    STEPS: tl.constexpr,
    COLUMNS: tl.constexpr,
):
    batch = tl.program_id(1).to(tl.int64)
    first = tl.program_id(0) * ROWS * STEPS
    column = tl.arange(0, COLUMNS)[None, :]
    is_column = column < width
    scale += batch * scale_batch
    if IS_SHARED:
        factor = 1 + tl.load(scale + column, mask=is_column, other=0).to(tl.float32)
    for step in range(STEPS):
        token = (first + step * ROWS + tl.arange(0, ROWS)[:, None]).to(tl.int64)
        is_token = token < tokens
        is_there = is_token & is_column
        place = batch * tokens + token
        middle = tl.load(mean + place, mask=is_token, other=0)
        inverse = tl.load(rstd + place, mask=is_token, other=0)
        row = tl.load(x + batch * x_batch + token * x_token + column, mask=is_there, other=0).to(tl.float32)
        own = tl.load(grad + batch * grad_batch + token * grad_token + column, mask=is_there, other=0).to(tl.float32)
        if not IS_SHARED:
            factor = 1 + tl.load(scale + token * scale_token + column, mask=is_there, other=0).to(tl.float32)
        own *= factor
        normed = tl.where(is_column, (row - middle) * inverse, 0.0)
        along = tl.sum(own * normed, axis=1, keep_dims=True) / width
        common = tl.sum(own, axis=1, keep_dims=True) / width
        result = inverse * (own - common - normed * along)
        if residual is not None:
            beside = residual + batch * residual_batch + token * residual_token + column
            result += tl.load(beside, mask=is_there, other=0).to(tl.float32)
        tl.store(out + place * width + column, result.to(out.dtype.element_ty), mask=is_there)
