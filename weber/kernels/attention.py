"""Attention and its backward pass by name, so that a block can keep what it needs and compute the rest again.

`functional.scaled_dot_product_attention` keeps queries, keys and values; a block has them before norm and rotation anyway.

Legend: B batch, H heads, S tokens, d width of a head.
"""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor

_OPS = torch.ops.aten
Kept = tuple[Any, ...]
"""What a backend needs again beside queries, keys and values; the output is first."""


def attend(query_BHSd: Tensor, key_BHSd: Tensor, value_BHSd: Tensor) -> Kept:
    """The output (B, H, S, d), and what `attend_backward` needs of it."""
    if query_BHSd.device.type == "cpu":
        kept: Kept = _OPS._scaled_dot_product_flash_attention_for_cpu(query_BHSd, key_BHSd, value_BHSd, 0.0, False)
        return kept
    made = _OPS._scaled_dot_product_flash_attention(query_BHSd, key_BHSd, value_BHSd, 0.0, False, False)
    return tuple(made[:8])


def attend_backward(
    grad_BHSd: Tensor, query_BHSd: Tensor, key_BHSd: Tensor, value_BHSd: Tensor, kept: Kept
) -> tuple[Tensor, Tensor, Tensor]:
    """Gradients of queries, keys and values."""
    grads: tuple[Tensor, Tensor, Tensor]
    if query_BHSd.device.type == "cpu":
        grads = _OPS._scaled_dot_product_flash_attention_for_cpu_backward(grad_BHSd, query_BHSd, key_BHSd, value_BHSd, *kept, 0.0, False)
        return grads
    output, logsumexp, cum_q, cum_k, max_q, max_k, seed, offset = kept
    grads = _OPS._scaled_dot_product_flash_attention_backward(
        grad_BHSd, query_BHSd, key_BHSd, value_BHSd, output, logsumexp, cum_q, cum_k, max_q, max_k, 0.0, False, seed, offset
    )
    return grads
