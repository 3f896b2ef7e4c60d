"""Attention as products of whole heads, where oneDNN multiplies much faster than MKL (`product.py`), and its backward pass.

PyTorch's own for CPUs multiplies small tiles by MKL. Here, with L as the backward pass needs it,

    O = exp(Q K^T / sqrt(d) - L) V                    L = log of the sums over keys of exp(Q K^T / sqrt(d))

and back, as in Dao 2023 (https://arxiv.org/abs/2307.08691, algorithm 2):

    P = exp(Q K^T / sqrt(d) - L)        dV = P^T dO        dS = P (dO V^T - sums over d of dO O)        dQ = dS K / sqrt(d)        dK = dS^T Q / sqrt(d)

The way back is computed transposed, with keys as rows, so that no product but that of dQ reads a matrix by columns, and that L and the sums are
what a layer's bias is. Powers are those of 2: PyTorch computes them itself, in a quarter of the time in which MKL does those of e.

Legend: B batch, H heads, T tokens, d width of a head.
"""

from __future__ import annotations

import math
from collections.abc import Iterator
from itertools import pairwise, product
from typing import Any

import torch
from torch import Tensor

from weber.kernels.product import has_narrow_mkl

_OF_TWO = math.log(2)
_DTYPES = (torch.float32, torch.bfloat16)
_LEAST_TOKENS = 256
_MOST_SCORES = 2**20
"""At once: two matrices of as many are held. Fewer would be nearer to the processor, but their products start too often."""


def is_quicker(query_BHTd: Tensor) -> bool:
    """Whether this takes less time than PyTorch's own."""
    return query_BHTd.shape[2] >= _LEAST_TOKENS and query_BHTd.dtype in _DTYPES and has_narrow_mkl()


def run(query_BHTd: Tensor, key_BHTd: Tensor, value_BHTd: Tensor) -> tuple[Tensor, Tensor]:
    """The output, and L (B, H, T), both in fp32."""
    query, key, value = _widen(query_BHTd, key_BHTd, value_BHTd)
    query.mul_(_build_scale(query))
    output, shifts = torch.empty_like(query), query.new_empty(query.shape[:3])
    for place in _list_heads(query):
        for part in _cut(query.shape[2]):
            weights = _multiply(query[place][part], key[place])
            most = weights.amax(1, keepdim=True)
            sums = weights.sub_(most).exp2_().sum(1, keepdim=True)
            torch.div(_multiply(weights, value[place].t()), sums, out=output[place][part])
            torch.add(most, sums.log2_(), out=shifts[place][part, None])
    return output, shifts.mul_(_OF_TWO)


def run_back(
    grad_BHTd: Tensor, query_BHTd: Tensor, key_BHTd: Tensor, value_BHTd: Tensor, output_BHTd: Tensor, logsumexp_BHT: Tensor
) -> tuple[Tensor, Tensor, Tensor]:
    """Gradients of queries, keys and values, all in fp32."""
    scale = _build_scale(query_BHTd)
    query, key, value, grad = _widen(query_BHTd, key_BHTd, value_BHTd, grad_BHTd)
    query.mul_(scale)
    shifts = logsumexp_BHT.mul(-1 / _OF_TWO).contiguous()
    sums = (grad * output_BHTd).sum(-1).neg_()
    found = torch.empty_like(query), torch.empty_like(query), torch.empty_like(query)
    for place in _list_heads(query):
        _run_head(*(one[place] for one in (query, key, value, grad, shifts, sums, *found)))
    found[0].mul_(scale * _OF_TWO)
    found[1].mul_(_OF_TWO)
    return found


def _run_head(
    query: Tensor, key: Tensor, value: Tensor, grad: Tensor, shifts: Tensor, sums: Tensor, *found: Tensor
) -> None:
    """Writes a head's gradients (T, d)."""
    query_grad, key_grad, value_grad = found
    total: Tensor | None = None
    for place in _cut(len(query)):
        weights = _multiply(key[place], query, shifts).exp2_()
        value_grad[place] = _multiply(weights, grad.t())
        score_grads = _multiply(value[place], grad, sums).mul_(weights)
        key_grad[place] = _multiply(score_grads, query.t())
        part = _multiply(key[place].t().contiguous(), score_grads.t())
        total = part if total is None else total.add_(part)
    assert total is not None
    query_grad.copy_(total.t())


def _widen(*tensors: Tensor) -> list[Tensor]:
    """Copies, each head in one piece."""
    return [torch.empty(one.shape, dtype=torch.float32).copy_(one) for one in tensors]


def _build_scale(query: Tensor) -> float:
    """Of scores whose powers of 2 are taken."""
    return float(query.shape[3] ** -0.5 / _OF_TWO)


def _list_heads(query: Tensor) -> Iterator[tuple[int, int]]:
    return product(range(query.shape[0]), range(query.shape[1]))


def _cut(num_tokens: int) -> list[slice]:
    """Rows of scores that are computed at once."""
    num_parts = -(-(num_tokens**2) // _MOST_SCORES)
    return [slice(*pair) for pair in pairwise(num_tokens * number // num_parts for number in range(num_parts + 1))]


def _multiply(rows: Tensor, factor: Tensor, bias: Tensor | None = None) -> Tensor:
    """rows x factor^T + bias; all have to be dense, by rows or by columns."""
    operations: Any = torch.ops.mkldnn._linear_pointwise
    made: Tensor = operations.default(rows, factor, bias, "none", [], "")
    return made
