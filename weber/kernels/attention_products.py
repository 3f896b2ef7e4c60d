"""Attention as products of whole heads, where oneDNN multiplies much faster than MKL (`product.py`), and its backward pass.

PyTorch's own for CPUs multiplies small tiles by MKL. Here, with L as the backward pass needs it,

    O = exp(Q K^T / sqrt(d) - L) V                    L = log of the sums over keys of exp(Q K^T / sqrt(d))

and back, as in Dao 2023 (https://arxiv.org/abs/2307.08691, algorithm 2):

    P = exp(Q K^T / sqrt(d) - L)        dV = P^T dO                dS = P (dO V^T - sums over d of dO O)
                                        dQ = dS K / sqrt(d)        dK = dS^T Q / sqrt(d)

The way back is computed transposed, with keys as rows, so that no product but that of dQ reads a matrix by columns, and that L and the
sums are what a layer's bias is. Powers are those of 2: PyTorch computes them itself, in a quarter of the time in which MKL does those of e.

Legend: B batch, H heads, T tokens, d width of a head.
"""

from __future__ import annotations

import math
from collections.abc import Iterator
from itertools import pairwise, product

import torch
from torch import Tensor

from weber.kernels.library import define
from weber.kernels.product import has_narrow_mkl, run_onednn

_OF_TWO = math.log(2)
_DTYPES = (torch.float32, torch.bfloat16)
_LEAST_TOKENS = 256
_MOST_SCORES = 2**19
"""At once: two matrices of as many are held, 4 MiB. Fewer would be nearer to the processor, but their products start too often."""


def is_quicker(query_BHTd: Tensor) -> bool:
    """Whether this takes less time than PyTorch's own."""
    return query_BHTd.shape[2] >= _LEAST_TOKENS and query_BHTd.dtype in _DTYPES and has_narrow_mkl()


def attend_heads_plain(query_BHTd: Tensor, key_BHTd: Tensor, value_BHTd: Tensor) -> tuple[Tensor, Tensor]:
    """The output, and L (B, H, T) in fp32."""
    output, shifts = _build_like(query_BHTd), torch.empty(query_BHTd.shape[:3], dtype=torch.float32)
    for place in _list_heads(query_BHTd):
        query, key, value = (_widen(one[place]) for one in (query_BHTd, key_BHTd, value_BHTd))
        query.mul_(_build_scale(query))
        for part in _cut(len(query)):
            weights = run_onednn(query[part], key)
            most = weights.amax(1, keepdim=True)
            sums = weights.sub_(most).exp2_().sum(1, keepdim=True)
            output[place][part].copy_(run_onednn(weights, value.t()).div_(sums))
            torch.add(most, sums.log2_(), out=shifts[place][part, None])
    return output, shifts.mul_(_OF_TWO)


def attend_heads_backward_plain(
    grad_BHTd: Tensor, query_BHTd: Tensor, key_BHTd: Tensor, value_BHTd: Tensor, output_BHTd: Tensor, logsumexp_BHT: Tensor
) -> tuple[Tensor, Tensor, Tensor]:
    """Gradients of queries, keys and values."""
    scale, shifts = _build_scale(query_BHTd), _widen(logsumexp_BHT).mul_(-1 / _OF_TWO)
    sums = torch.linalg.vecdot(_widen(grad_BHTd), output_BHTd.float()).neg_()
    found = _build_like(query_BHTd), _build_like(query_BHTd), _build_like(query_BHTd)
    for place in _list_heads(query_BHTd):
        grad, query, key, value = (_widen(one[place]) for one in (grad_BHTd, query_BHTd, key_BHTd, value_BHTd))
        query.mul_(scale)
        query_grad, key_grad, value_grad = (one[place] for one in found)
        total: Tensor | None = None
        for part in _cut(len(query)):
            weights = run_onednn(key[part], query, shifts[place]).exp2_()
            value_grad[part].copy_(run_onednn(weights, grad.t()))
            score_grads = run_onednn(value[part], grad, sums[place]).mul_(weights)
            torch.mul(run_onednn(score_grads, query.t()), _OF_TWO, out=key_grad[part])
            own = run_onednn(key[part].t().contiguous(), score_grads.t())
            total = own if total is None else total.add_(own)
        assert total is not None
        torch.mul(total.t(), scale * _OF_TWO, out=query_grad)
    return found


def _build_like(tensor: Tensor) -> Tensor:
    """(B, H, T, d) with heads beside each other, as PyTorch's own gives it: whoever joins them then copies nothing."""
    batch, heads, tokens, width = tensor.shape
    return tensor.new_empty((batch, tokens, heads, width)).transpose(1, 2)


def _widen(one: Tensor) -> Tensor:
    """A copy in one piece."""
    return torch.empty(one.shape, dtype=torch.float32).copy_(one)


def _build_scale(query: Tensor) -> float:
    """Of scores whose powers of 2 are taken."""
    return float(query.shape[-1] ** -0.5 / _OF_TWO)


def _list_heads(query: Tensor) -> Iterator[tuple[int, int]]:
    return product(range(query.shape[0]), range(query.shape[1]))


def _cut(num_tokens: int) -> list[slice]:
    """Rows of scores that are computed at once."""
    num_parts = -(-(num_tokens**2) // _MOST_SCORES)
    return [slice(*pair) for pair in pairwise(num_tokens * number // num_parts for number in range(num_parts + 1))]


attend_heads = define(
    "attend_heads",
    "(Tensor query, Tensor key, Tensor value) -> (Tensor, Tensor)",
    plain=attend_heads_plain,
    fake=lambda query, key, value: (_build_like(query), query.new_empty(query.shape[:3], dtype=torch.float32)),
    is_whole=True,
)
attend_heads_backward = define(
    "attend_heads_backward",
    "(Tensor grad, Tensor query, Tensor key, Tensor value, Tensor output, Tensor logsumexp) -> (Tensor, Tensor, Tensor)",
    plain=attend_heads_backward_plain,
    fake=lambda grad, query, key, value, output, logsumexp: (_build_like(query), _build_like(query), _build_like(query)),
    is_whole=True,
)
