"""Attention and its backward pass by name, so that a block can keep what it needs and compute the rest again.

`functional.scaled_dot_product_attention` keeps queries, keys and values; a block has them before norm and rotation anyway.

Legend: B batch, H heads, S tokens, d width of a head.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from importlib import import_module
from typing import Any

import torch
from torch import Tensor
from torch.nn.attention import SDPBackend

from weber.kernels.attention_products import attend_heads, attend_heads_backward, is_quicker

_OPS = torch.ops.aten
_FLASH_ON_CPU, _FLASH_ON_CPU_BACKWARD = (
    _OPS._scaled_dot_product_flash_attention_for_cpu,
    _OPS._scaled_dot_product_flash_attention_for_cpu_backward,
)
_AMPERE, _HOPPER = (8, 0), (9, 0)
_HALVES, _ALL = (torch.bfloat16, torch.float16), (torch.bfloat16, torch.float16, torch.float32)
_NARROW_WIDTH, _NUM_FEW = 48, 128
_NUM_LEFT_OUT = 20
"""Inputs of FlashAttention 3 between values and scale: for caches, packed texts and 8 bits."""

Kept = tuple[Any, ...]
"""What a backend needs again beside queries, keys and values; the output is first."""

Grads = tuple[Tensor, Tensor, Tensor]


@dataclass(frozen=True)
class Backend:
    """A way to attend, and what it takes.

    `backward` None: it has none. `capability`: the least of a GPU, or the only one. `package`: what has to be installed for it. `sdp`: its
    name in PyTorch's `scaled_dot_product_attention`, where that has to be told. `error`: how far its outputs may be off, relative to their
    size, where it rounds to fewer bits than it is given.
    """

    forward: Callable[[Tensor, Tensor, Tensor], Kept]
    backward: Callable[[Tensor, Tensor, Tensor, Tensor, Kept], Grads] | None
    device: str = "cuda"
    dtypes: tuple[torch.dtype, ...] = _HALVES
    most_width: int | None = None
    takes_mask: bool = False
    capability: tuple[int, int] = (0, 0)
    is_only: bool = False
    needs_nvidia: bool = False
    package: str | None = None
    sdp: SDPBackend | None = None
    error: float | None = None


def attend(query_BHSd: Tensor, key_BHSd: Tensor, value_BHSd: Tensor, name: str | None = None) -> Kept:
    """The output (B, H, S, d), and what `attend_backward` needs of it. `name` left out: what `choose_kind` says."""
    return BACKENDS[name or choose_kind(query_BHSd)].forward(query_BHSd, key_BHSd, value_BHSd)


def attend_backward(
    grad_BHSd: Tensor, query_BHSd: Tensor, key_BHSd: Tensor, value_BHSd: Tensor, kept: Kept, name: str | None = None
) -> Grads:
    """Gradients of queries, keys and values."""
    backward = BACKENDS[name or choose_kind(query_BHSd)].backward
    assert backward is not None, f"{name} has no backward pass"
    return backward(grad_BHSd, query_BHSd, key_BHSd, value_BHSd, kept)


def choose_kind(query_BHSd: Tensor) -> str:
    """`cpu`; `flash`, of GPUs since Ampere for 16 bits, and what is counted on the meta device; else `efficient`."""
    device = query_BHSd.device
    if device.type == "cpu":
        return "cpu"
    if device.type == "meta":
        return "flash"
    is_flash = query_BHSd.dtype in _HALVES and torch.backends.cuda.is_flash_attention_available()
    return "flash" if is_flash and torch.cuda.get_device_capability(device) >= _AMPERE else "efficient"


def _attend_cpu(query: Tensor, key: Tensor, value: Tensor) -> Kept:
    is_ours = is_quicker(query)
    kept: Kept = attend_heads(query, key, value) if is_ours else _FLASH_ON_CPU(query, key, value, 0.0, False)
    return kept


def _attend_cpu_backward(grad: Tensor, query: Tensor, key: Tensor, value: Tensor, kept: Kept) -> Grads:
    output, logsumexp = kept
    if not is_quicker(query):
        return _run_flash_back(grad, query, key, value, output, logsumexp)
    grads: Grads = attend_heads_backward(grad, query, key, value, output, logsumexp)
    return grads


def _run_flash_back(grad: Tensor, query: Tensor, key: Tensor, value: Tensor, output: Tensor, logsumexp: Tensor) -> Grads:
    """Of narrow heads or few tokens in bf16 in fp32, which takes 0.2 to 0.7 of the time on CPUs that multiply bf16, and is nearer."""
    if query.dtype == torch.bfloat16 and (query.shape[-1] <= _NARROW_WIDTH or query.shape[-2] <= _NUM_FEW):
        wide = [one.float() for one in (grad, query, key, value, output)]
        query_grad, key_grad, value_grad = (one.to(query.dtype) for one in _FLASH_ON_CPU_BACKWARD(*wide, logsumexp, 0.0, False))
        return query_grad, key_grad, value_grad
    grads: Grads = _FLASH_ON_CPU_BACKWARD(grad, query, key, value, output, logsumexp, 0.0, False)
    return grads


def _attend_flash(query: Tensor, key: Tensor, value: Tensor) -> Kept:
    kept: Kept = _OPS._scaled_dot_product_flash_attention(query, key, value, 0.0, False, False)[:8]
    return kept


def _attend_flash_backward(grad: Tensor, query: Tensor, key: Tensor, value: Tensor, kept: Kept) -> Grads:
    output, logsumexp, cum_q, cum_k, max_q, max_k, seed, offset = kept
    lengths = cum_q, cum_k, max_q, max_k
    grads: Grads = _OPS._scaled_dot_product_flash_attention_backward(
        grad, query, key, value, output, logsumexp, *lengths, 0.0, False, seed, offset
    )
    return grads


def _attend_cudnn(query: Tensor, key: Tensor, value: Tensor) -> Kept:
    # By name it is wrong for tensors that do not lie in the order of their dimensions, as diffusers found.
    whole = query.contiguous(), key.contiguous(), value.contiguous()
    output, *kept = _OPS._scaled_dot_product_cudnn_attention(*whole, None, True, 0.0, False, False)[:8]
    return _turn(_turn(output)[0].contiguous())[0], *kept  # tokens first, so that a block gives on what is kept


def _attend_cudnn_backward(grad: Tensor, query: Tensor, key: Tensor, value: Tensor, kept: Kept) -> Grads:
    output, logsumexp, cum_q, cum_k, max_q, max_k, seed, offset = kept
    whole = [one.contiguous() for one in (grad, query, key, value, output)]
    lengths = cum_q, cum_k, max_q, max_k
    grads: Grads = _OPS._scaled_dot_product_cudnn_attention_backward(
        *whole, logsumexp, seed, offset, None, *lengths, 0.0, False
    )
    return grads


def _attend_efficient(query: Tensor, key: Tensor, value: Tensor) -> Kept:
    kept: Kept = _OPS._scaled_dot_product_efficient_attention(query, key, value, None, True, 0.0, False)
    return kept


def _attend_efficient_backward(grad: Tensor, query: Tensor, key: Tensor, value: Tensor, kept: Kept) -> Grads:
    wanted = [True, True, True, False]
    grads: Grads = _OPS._scaled_dot_product_efficient_attention_backward(grad, query, key, value, None, *kept, 0.0, wanted, False)[:3]
    return grads


def _attend_flash3(query: Tensor, key: Tensor, value: Tensor) -> Kept:
    """FlashAttention 3 has tokens before heads, and names its inputs otherwise from release to release: they are given by place."""
    run = import_module("flash_attn_interface")._flash_attn_forward
    output, logsumexp, *_ = run(*_turn(query, key, value), *(None,) * _NUM_LEFT_OUT, query.shape[-1] ** -0.5, False)
    return output.transpose(1, 2), logsumexp


def _attend_flash3_backward(grad: Tensor, query: Tensor, key: Tensor, value: Tensor, kept: Kept) -> Grads:
    run = import_module("flash_attn_interface")._flash_attn_backward
    output, logsumexp = kept
    inputs = _turn(query, key, value)
    grads = [torch.empty(one.shape, dtype=one.dtype, device=one.device) for one in inputs]
    lengths = (None,) * 6
    run(*_turn(grad), *inputs, *_turn(output), logsumexp, *lengths, *grads, query.shape[-1] ** -0.5, False)
    query_grad, key_grad, value_grad = _turn(*grads)
    return query_grad, key_grad, value_grad


def _attend_sage(query: Tensor, key: Tensor, value: Tensor) -> Kept:
    return (import_module("sageattention").sageattn(query, key, value, tensor_layout="HND", is_causal=False),)


def _turn(*tensors: Tensor) -> list[Tensor]:
    """Tokens before heads, or back."""
    return [one.transpose(1, 2) for one in tensors]


BACKENDS: dict[str, Backend] = {
    "cpu": Backend(_attend_cpu, _attend_cpu_backward, device="cpu", dtypes=_ALL, takes_mask=True),
    "flash": Backend(
        _attend_flash, _attend_flash_backward, most_width=256, capability=_AMPERE, sdp=SDPBackend.FLASH_ATTENTION
    ),
    "flash3": Backend(
        _attend_flash3,
        _attend_flash3_backward,
        most_width=256,
        capability=_HOPPER,
        is_only=True,
        needs_nvidia=True,
        package="flash_attn_interface",
    ),
    "cudnn": Backend(
        _attend_cudnn,
        _attend_cudnn_backward,
        most_width=128,
        takes_mask=True,
        capability=_AMPERE,
        needs_nvidia=True,
        sdp=SDPBackend.CUDNN_ATTENTION,
    ),
    "efficient": Backend(
        _attend_efficient, _attend_efficient_backward, dtypes=_ALL, takes_mask=True, sdp=SDPBackend.EFFICIENT_ATTENTION
    ),
    "sage": Backend(
        _attend_sage, None, most_width=128, capability=_AMPERE, needs_nvidia=True, package="sageattention", error=0.1
    ),
}
"""The ways to attend. What a GPU takes without being told is said by `choose_kind`; which is best, by `kernels/trial.py`."""
