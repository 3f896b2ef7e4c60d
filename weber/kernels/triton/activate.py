"""`weber/kernels/activate.py` on a GPU: SwiGLU from rows that may be part of wider ones.

Legend: N rows, M width of the MLP.
"""

from __future__ import annotations

import torch
import triton
import triton.language as tl
from torch import Tensor

from weber.kernels.triton.tiles import build_like, count_warps, cover, lay

_TILE = 2048
"""Elements of each half that a program does."""


def swiglu(x: Tensor) -> Tensor:
    """See `swiglu_plain`."""
    rows = _lay_rows(x)
    batch, tokens, width = rows.shape[0], rows.shape[1], rows.shape[2] // 2
    out = torch.empty((*x.shape[:-1], width), dtype=x.dtype, device=x.device)
    columns, num_rows = _cut(width)
    _swiglu[(triton.cdiv(tokens, num_rows), triton.cdiv(width, columns), batch)](
        *(rows, out, *rows.stride()[:2], tokens, width), ROWS=num_rows, COLUMNS=columns, num_warps=count_warps(num_rows * columns)
    )
    return out


def swiglu_backward(grad: Tensor, x: Tensor) -> Tensor:
    """See `swiglu_backward_plain`."""
    grads, rows = _lay_rows(grad), _lay_rows(x)
    batch, tokens, width = grads.shape
    out = build_like(x)
    columns, num_rows = _cut(width)
    _swiglu_backward[(triton.cdiv(tokens, num_rows), triton.cdiv(width, columns), batch)](
        *(grads, rows, out, *grads.stride()[:2], *rows.stride()[:2], tokens, width),
        ROWS=num_rows,
        COLUMNS=columns,
        num_warps=count_warps(num_rows * columns),
    )
    return out


def _lay_rows(x: Tensor) -> Tensor:
    """(B, S, width): as it lies where that can be, which is so for what has one or two dimensions before the last."""
    return lay(x.unsqueeze(0) if x.dim() == 2 else x.flatten(0, -3))


def _cut(width: int) -> tuple[int, int]:
    """Columns and rows of a tile."""
    columns = cover(width, at_most=_TILE // 2)
    return columns, max(_TILE // columns, 1)


@triton.jit
def _swiglu(x, out, x_batch, x_token, tokens, width, ROWS: tl.constexpr, COLUMNS: tl.constexpr):
    token = (tl.program_id(0) * ROWS + tl.arange(0, ROWS)[:, None]).to(tl.int64)
    column = tl.program_id(1) * COLUMNS + tl.arange(0, COLUMNS)[None, :]
    batch = tl.program_id(2).to(tl.int64)
    is_there = (token < tokens) & (column < width)
    own = x + batch * x_batch + token * x_token + column
    gate = tl.load(own, mask=is_there, other=0).to(tl.float32)
    value = tl.load(own + width, mask=is_there, other=0).to(tl.float32)
    result = gate * tl.sigmoid(gate) * value
    tl.store(out + (batch * tokens + token) * width + column, result.to(out.dtype.element_ty), mask=is_there)


@triton.jit
def _swiglu_backward(
    grad,
    x,
    out,
    grad_batch,
    grad_token,
    x_batch,
    x_token,
    tokens,
    width,
    ROWS: tl.constexpr,
    COLUMNS: tl.constexpr,
):
    token = (tl.program_id(0) * ROWS + tl.arange(0, ROWS)[:, None]).to(tl.int64)
    column = tl.program_id(1) * COLUMNS + tl.arange(0, COLUMNS)[None, :]
    batch = tl.program_id(2).to(tl.int64)
    is_there = (token < tokens) & (column < width)
    own = x + batch * x_batch + token * x_token + column
    gate = tl.load(own, mask=is_there, other=0).to(tl.float32)
    value = tl.load(own + width, mask=is_there, other=0).to(tl.float32)
    back = tl.load(grad + batch * grad_batch + token * grad_token + column, mask=is_there, other=0).to(tl.float32)
    share = tl.sigmoid(gate)
    place = out + (batch * tokens + token) * 2 * width + column
    gate_grad = back * value * share * (1 + gate * (1 - share))
    tl.store(place, gate_grad.to(out.dtype.element_ty), mask=is_there)
    tl.store(place + width, (back * gate * share).to(out.dtype.element_ty), mask=is_there)
