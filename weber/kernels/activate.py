"""What stands between the two layers of a block's MLP. The backward pass needs the input alone.

GELU (its tanh form) is one pass already as PyTorch has it for GPUs. On CPUs it takes tanh from a library that takes six times as long as
the one that `torch.tanh` asks, so there in fp32 it is made of several passes over as many rows as the cache holds; on those of AMD that one
takes longer still, and the passes are others. SwiGLU, `silu(a) * b`
of the halves a and b of its input, is two passes there and three back, and one each here.

Legend: N rows, M width of the MLP.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from functools import cache
from typing import Literal

import torch
from torch import Tensor
from torch.nn import functional

from weber.kernels.library import define, is_recorded
from weber.kernels.product import has_narrow_mkl

Activation = Literal["gelu", "swiglu"]

_FACTOR, _CUBIC = math.sqrt(2 / math.pi), 0.044715
"""GELU is x (1 + tanh(u)) / 2 with u = factor (x + cubic x^3)."""

_LEAST_BENT = -60.0
"""Of 2 u, where GELU is nothing beside any x: what is smaller makes numbers that are no longer exact, and that processors are slow with."""

_WIDE = (torch.float32, torch.float64)

_NUM_AT_ONCE = 2**16
"""Numbers, of which a few such tensors are in the cache."""

_NUM_SMALL = 2**18
"""Numbers of which whoever records what is done may keep the result."""


def activate(x: Tensor, kind: Activation) -> Tensor:
    """GELU: (N, M) to (N, M); SwiGLU: (N, 2 M) to (N, M)."""
    if kind == "gelu" and x.device.type == "cpu" and has_narrow_mkl():
        return gelu_by_sigmoid(x)
    if kind == "gelu" and x.device.type == "cpu" and x.dtype in _WIDE:
        return gelu_rows(x)
    result: Tensor = swiglu(x) if kind == "swiglu" else torch.ops.aten.gelu(x, approximate="tanh")
    return result


def activate_backward(grad: Tensor, x: Tensor, kind: Activation) -> Tensor:
    """The gradient of x."""
    result: Tensor = swiglu_backward(grad, x) if kind == "swiglu" else torch.ops.aten.gelu_backward(grad, x, approximate="tanh")
    return result


def gelu_rows(x: Tensor) -> Tensor:
    """GELU in several passes. Each writes over what the one before made, which the cache likes; for who records them each makes a tensor
    of its own, so that what is made twice can be told. The bits are the same."""
    start, half = _build_number(_FACTOR, x.dtype), _build_number(0.5, x.dtype)
    if is_recorded() and x.numel() <= _NUM_SMALL:
        bent = torch.addcmul(start, x, x, value=_FACTOR * _CUBIC)
        return torch.addcmul(x, x, torch.tanh(bent * x)) * half
    out = torch.empty(x.shape, dtype=x.dtype, device=x.device)
    for rows, own in zip(_cut(x), _cut(out), strict=True):
        torch.addcmul(start, rows, rows, value=_FACTOR * _CUBIC, out=own)
        torch.addcmul(rows, rows, own.mul_(rows).tanh_(), out=own)
        own.mul_(half)
    return out


def gelu_by_sigmoid(x: Tensor) -> Tensor:
    """GELU as x / (1 + exp(-2 u)), in passes as `gelu_rows`, where MKL's tanh takes ten times as long as PyTorch's own sigmoid."""
    dtype = torch.promote_types(x.dtype, torch.float32)
    start, slope = _build_number(2 * _FACTOR, dtype), 2 * _FACTOR * _CUBIC
    if is_recorded() and x.numel() <= _NUM_SMALL:
        wide = x.to(dtype)
        bent = torch.clamp_min(torch.addcmul(start, wide, wide, value=slope) * wide, _LEAST_BENT)
        return (torch.sigmoid(bent) * wide).to(x.dtype)
    out = torch.empty(x.shape, dtype=x.dtype, device=x.device)
    for rows, own in zip(_cut(x), _cut(out), strict=True):
        wide = rows.to(dtype)
        made = torch.addcmul(start, wide, wide, value=slope, out=own if own.dtype == dtype else None)
        made.mul_(wide).clamp_min_(_LEAST_BENT).sigmoid_().mul_(wide)
        if made is not own:
            own.copy_(made)
    return out


def _cut(x: Tensor) -> Sequence[Tensor]:
    """So many rows, each time."""
    return torch.split(x.flatten(0, -2), max(1, _NUM_AT_ONCE // x.shape[-1]))


@cache
def _build_number(value: float, dtype: torch.dtype) -> Tensor:
    """PyTorch would make a tensor of a number whenever it is given one."""
    return torch.tensor(value, dtype=dtype, device="cpu")


def swiglu_plain(x: Tensor) -> Tensor:
    """Each of the two steps is rounded to the precision of x, as in the library's layers."""
    gate, value = x.chunk(2, dim=-1)
    return functional.silu(gate).mul_(value)


def swiglu_backward_plain(grad: Tensor, x: Tensor) -> Tensor:
    """See `activate_backward`."""
    gate, value = x.chunk(2, dim=-1)
    both = torch.empty(x.shape, dtype=x.dtype, device=x.device)
    grad_gate, grad_value = both.chunk(2, dim=-1)
    torch.mul(grad, functional.silu(gate), out=grad_value)
    torch.ops.aten.silu_backward.grad_input(grad * value, gate, grad_input=grad_gate)
    return both


swiglu = define(
    "swiglu",
    "(Tensor x) -> Tensor",
    plain=swiglu_plain,
    fake=lambda x: x.new_empty((*x.shape[:-1], x.shape[-1] // 2)),
    gpu="activate",
)
swiglu_backward = define(
    "swiglu_backward",
    "(Tensor grad, Tensor x) -> Tensor",
    plain=swiglu_backward_plain,
    fake=lambda grad, x: torch.empty(x.shape, dtype=x.dtype, device=x.device),
    gpu="activate",
)
