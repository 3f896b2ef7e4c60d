"""`weber/kernels/rotate.py` on a GPU: norm and rotation of a head in one pass, from one strided place to another.

A program does heads of several tokens, all of them queries or all of them keys. `out` may be the pair itself.

Legend: B batch, S tokens, H heads, d width of a head, 2 queries and keys.
"""

from __future__ import annotations

import torch
import triton
import triton.language as tl
from torch import Tensor

from weber.kernels.triton.tiles import count_warps, cover, lay

_TILE = 2048
"""Elements that a program does."""


def rotate(pair_BS2Hd: Tensor, weight_2d: Tensor, angles: Tensor, eps: float, out_BS2Hd: Tensor) -> None:
    """See `rotate_plain`."""
    pair_BS2Hd, turns = lay(pair_BS2Hd), _lay_angles(angles)
    batch, tokens, _, heads, width = pair_BS2Hd.shape
    columns, rows = _cut(width)
    _rotate[(triton.cdiv(tokens * heads, rows), 2, batch)](
        *(pair_BS2Hd, weight_2d.contiguous(), turns, _check_out(out_BS2Hd)),
        *(*pair_BS2Hd.stride()[:4], *out_BS2Hd.stride()[:4], turns.stride(0)),
        *(tokens, heads, width, eps),
        ROWS=rows,
        COLUMNS=columns,
        num_warps=count_warps(rows * columns),
    )


def rotate_backward(
    grad_q_BSHd: Tensor, grad_k_BSHd: Tensor, pair_BS2Hd: Tensor, weight_2d: Tensor, angles: Tensor, eps: float, out_BS2Hd: Tensor
) -> None:
    """See `rotate_backward_plain`."""
    grad_q_BSHd, grad_k_BSHd, pair_BS2Hd, turns = lay(grad_q_BSHd), lay(grad_k_BSHd), lay(pair_BS2Hd), _lay_angles(angles)
    batch, tokens, _, heads, width = pair_BS2Hd.shape
    columns, rows = _cut(width)
    _rotate_backward[(triton.cdiv(tokens * heads, rows), 2, batch)](
        *(grad_q_BSHd, grad_k_BSHd, pair_BS2Hd, weight_2d.contiguous(), turns, _check_out(out_BS2Hd)),
        *(*grad_q_BSHd.stride()[:3], *grad_k_BSHd.stride()[:3]),
        *(*pair_BS2Hd.stride()[:4], *out_BS2Hd.stride()[:4], turns.stride(0)),
        *(tokens, heads, width, eps),
        ROWS=rows,
        COLUMNS=columns,
        num_warps=count_warps(rows * columns),
    )


def _lay_angles(angles: Tensor) -> Tensor:
    """Cosine and sine of each pair beside each other, (S, d)."""
    return lay(torch.view_as_real(angles).flatten(1))


def _check_out(out: Tensor) -> Tensor:
    assert out.stride(-1) == 1, "the result is written in place"
    return out


def _cut(width: int) -> tuple[int, int]:
    columns = cover(width)
    return columns, max(_TILE // columns, 1)


@triton.jit
def _rotate(
    pair,
    weight,
    turns,
    out,
    pair_batch,
    pair_token,
    pair_kind,
    pair_head,
    out_batch,
    out_token,
    out_kind,
    out_head,
    turn_token,
    tokens,
    heads,
    width,
    eps,
    ROWS: tl.constexpr,
    COLUMNS: tl.constexpr,
):
    row = tl.program_id(0) * ROWS + tl.arange(0, ROWS)[:, None]
    kind, batch = tl.program_id(1).to(tl.int64), tl.program_id(2).to(tl.int64)
    token, head = (row // heads).to(tl.int64), row % heads
    column = tl.arange(0, COLUMNS)[None, :]
    is_column = column < width
    is_there = (row < tokens * heads) & is_column

    own = tl.load(pair + batch * pair_batch + kind * pair_kind + token * pair_token + head * pair_head + column, mask=is_there, other=0)
    own = own.to(tl.float32)
    factor = tl.load(weight + kind * width + column, mask=is_column, other=0).to(tl.float32)
    own = own * tl.rsqrt(tl.sum(own * own, axis=1, keep_dims=True) / width + eps) * factor

    real, imaginary = tl.split(tl.reshape(own, (ROWS, COLUMNS // 2, 2)))
    turn = tl.load(turns + token * turn_token + column, mask=is_there, other=0).to(tl.float32)
    cosine, sine = tl.split(tl.reshape(turn, (ROWS, COLUMNS // 2, 2)))
    turned = tl.join(real * cosine - imaginary * sine, real * sine + imaginary * cosine)
    result = tl.reshape(turned, (ROWS, COLUMNS)).to(out.dtype.element_ty)
    tl.store(out + batch * out_batch + kind * out_kind + token * out_token + head * out_head + column, result, mask=is_there)


@triton.jit
def _rotate_backward(
    grad_q,
    grad_k,
    pair,
    weight,
    turns,
    out,
    q_batch,
    q_token,
    q_head,
    k_batch,
    k_token,
    k_head,
    pair_batch,
    pair_token,
    pair_kind,
    pair_head,
    out_batch,
    out_token,
    out_kind,
    out_head,
    turn_token,
    tokens,
    heads,
    width,
    eps,
    ROWS: tl.constexpr,
    COLUMNS: tl.constexpr,
):
    row = tl.program_id(0) * ROWS + tl.arange(0, ROWS)[:, None]
    kind, batch = tl.program_id(1).to(tl.int64), tl.program_id(2).to(tl.int64)
    token, head = (row // heads).to(tl.int64), row % heads
    column = tl.arange(0, COLUMNS)[None, :]
    is_column = column < width
    is_there = (row < tokens * heads) & is_column

    if kind == 0:
        grad = tl.load(grad_q + batch * q_batch + token * q_token + head * q_head + column, mask=is_there, other=0)
    else:
        grad = tl.load(grad_k + batch * k_batch + token * k_token + head * k_head + column, mask=is_there, other=0)
    real, imaginary = tl.split(tl.reshape(grad.to(tl.float32), (ROWS, COLUMNS // 2, 2)))
    turn = tl.load(turns + token * turn_token + column, mask=is_there, other=0).to(tl.float32)
    cosine, sine = tl.split(tl.reshape(turn, (ROWS, COLUMNS // 2, 2)))
    turned = tl.join(real * cosine + imaginary * sine, imaginary * cosine - real * sine)
    back = tl.reshape(turned, (ROWS, COLUMNS))

    own = tl.load(pair + batch * pair_batch + kind * pair_kind + token * pair_token + head * pair_head + column, mask=is_there, other=0)
    own = own.to(tl.float32)
    back *= tl.load(weight + kind * width + column, mask=is_column, other=0).to(tl.float32)
    inverse = tl.rsqrt(tl.sum(own * own, axis=1, keep_dims=True) / width + eps)
    along = tl.sum(back * own, axis=1, keep_dims=True) * inverse * inverse / width
    result = (inverse * (back - own * along)).to(out.dtype.element_ty)
    tl.store(out + batch * out_batch + kind * out_kind + token * out_token + head * out_head + column, result, mask=is_there)
