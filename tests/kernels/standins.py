"""Packages of attention that need a GPU, with their own signatures, computing by plain PyTorch: what is called, and how, is ours."""

from __future__ import annotations

import sys
from types import ModuleType
from typing import Any

import pytest
import torch
from torch import Tensor
from torch.nn import functional


def _flash_attn_forward(
    q: Tensor,
    k: Tensor,
    v: Tensor,
    k_new: Any = None,
    v_new: Any = None,
    qv: Any = None,
    out_: Any = None,
    cu_seqlens_q: Any = None,
    cu_seqlens_k: Any = None,
    cu_seqlens_k_new: Any = None,
    seqused_q: Any = None,
    seqused_k: Any = None,
    max_seqlen_q: Any = None,
    max_seqlen_k: Any = None,
    page_table: Any = None,
    kv_batch_idx: Any = None,
    leftpad_k: Any = None,
    rotary_cos: Any = None,
    rotary_sin: Any = None,
    seqlens_rotary: Any = None,
    q_descale: Any = None,
    k_descale: Any = None,
    v_descale: Any = None,
    softmax_scale: float | None = None,
    causal: bool = False,
) -> tuple[Tensor, ...]:
    """As of 2026, of `hopper/flash_attn_interface.py`; queries (B, S, H, d)."""
    assert softmax_scale == pytest.approx(q.shape[-1] ** -0.5) and not causal
    query, key, value = (one.transpose(1, 2) for one in (q, k, v))
    scores = query @ key.transpose(2, 3) * softmax_scale
    output = (scores.softmax(-1) @ value).transpose(1, 2).contiguous()
    return output, scores.logsumexp(-1), output.new_empty(0), output.new_empty(0)


def _flash_attn_backward(
    dout: Tensor,
    q: Tensor,
    k: Tensor,
    v: Tensor,
    out: Tensor,
    softmax_lse: Tensor,
    cu_seqlens_q: Any = None,
    cu_seqlens_k: Any = None,
    sequed_q: Any = None,
    sequed_k: Any = None,
    max_seqlen_q: Any = None,
    max_seqlen_k: Any = None,
    dq: Tensor | None = None,
    dk: Tensor | None = None,
    dv: Tensor | None = None,
    softmax_scale: float | None = None,
    is_causal: bool = False,
) -> Tensor:
    """Writes into `dq`, `dk` and `dv`; from the sums of the forward pass, as kernels do."""
    assert dq is not None and dk is not None and dv is not None and softmax_scale is not None and not is_causal
    grad, query, key, value, output = (one.transpose(1, 2) for one in (dout, q, k, v, out))
    weights = (query @ key.transpose(2, 3) * softmax_scale - softmax_lse[..., None]).exp()
    rest = (grad * output).sum(-1, keepdim=True)
    scores_grad = weights * (grad @ value.transpose(2, 3) - rest) * softmax_scale
    dq.copy_((scores_grad @ key).transpose(1, 2))
    dk.copy_((scores_grad.transpose(2, 3) @ query).transpose(1, 2))
    dv.copy_((weights.transpose(2, 3) @ grad).transpose(1, 2))
    return rest


def put_flash3(monkeypatch: pytest.MonkeyPatch) -> None:
    """As if FlashAttention 3 were installed."""
    module: Any = ModuleType("flash_attn_interface")
    module._flash_attn_forward, module._flash_attn_backward = _flash_attn_forward, _flash_attn_backward
    monkeypatch.setitem(sys.modules, "flash_attn_interface", module)


def put_sage(monkeypatch: pytest.MonkeyPatch, *, spread: float = 0.0) -> list[bool]:
    """As if SageAttention were installed, with outputs that are off by `spread`; returns what each call found: whether gradients are on."""
    calls: list[bool] = []

    def sageattn(
        q: Tensor, k: Tensor, v: Tensor, tensor_layout: str = "HND", is_causal: bool = False, sm_scale: float | None = None
    ) -> Tensor:
        assert tensor_layout == "HND" and not is_causal and sm_scale is None
        calls.append(torch.is_grad_enabled())
        return functional.scaled_dot_product_attention(q, k, v) * (1 + spread)

    module: Any = ModuleType("sageattention")
    module.sageattn = sageattn
    monkeypatch.setitem(sys.modules, "sageattention", module)
    return calls
