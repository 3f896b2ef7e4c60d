"""Attention and its backward pass by name, so that a block can keep what it needs and compute the rest again.

`functional.scaled_dot_product_attention` keeps queries, keys and values; a block has them before norm and rotation anyway.

Legend: B batch, H heads, S tokens, d width of a head.
"""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor

_OPS = torch.ops.aten
_AMPERE = (8, 0)
Kept = tuple[Any, ...]
"""What a backend needs again beside queries, keys and values; the output is first."""


def attend(query_BHSd: Tensor, key_BHSd: Tensor, value_BHSd: Tensor) -> Kept:
    """The output (B, H, S, d), and what `attend_backward` needs of it."""
    kept: Kept
    kind = choose_kind(query_BHSd)
    if kind == "cpu":
        kept = _OPS._scaled_dot_product_flash_attention_for_cpu(query_BHSd, key_BHSd, value_BHSd, 0.0, False)
    elif kind == "flash":
        kept = _OPS._scaled_dot_product_flash_attention(query_BHSd, key_BHSd, value_BHSd, 0.0, False, False)[:8]
    else:
        kept = _OPS._scaled_dot_product_efficient_attention(query_BHSd, key_BHSd, value_BHSd, None, True, 0.0, False)
    return kept


def attend_backward(
    grad_BHSd: Tensor, query_BHSd: Tensor, key_BHSd: Tensor, value_BHSd: Tensor, kept: Kept
) -> tuple[Tensor, Tensor, Tensor]:
    """Gradients of queries, keys and values."""
    query, key, value = query_BHSd, key_BHSd, value_BHSd
    kind = choose_kind(query)
    grads: tuple[Tensor, Tensor, Tensor]
    if kind == "cpu":
        grads = _OPS._scaled_dot_product_flash_attention_for_cpu_backward(grad_BHSd, query, key, value, *kept, 0.0, False)
    elif kind == "flash":
        output, logsumexp, cum_q, cum_k, max_q, max_k, seed, offset = kept
        lengths = cum_q, cum_k, max_q, max_k
        grads = _OPS._scaled_dot_product_flash_attention_backward(
            grad_BHSd, query, key, value, output, logsumexp, *lengths, 0.0, False, seed, offset
        )
    else:
        wanted = [True, True, True, False]
        grads = _OPS._scaled_dot_product_efficient_attention_backward(grad_BHSd, query, key, value, None, *kept, 0.0, wanted, False)[:3]
    return grads


def choose_kind(query_BHSd: Tensor) -> str:
    """`cpu`; `flash`, of GPUs since Ampere for 16 bits, and what is counted on the meta device; else `efficient`."""
    device = query_BHSd.device
    if device.type == "cpu":
        return "cpu"
    if device.type == "meta":
        return "flash"
    is_flash = query_BHSd.dtype in (torch.bfloat16, torch.float16) and torch.backends.cuda.is_flash_attention_available()
    return "flash" if is_flash and torch.cuda.get_device_capability(device) >= _AMPERE else "efficient"
