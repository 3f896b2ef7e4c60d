"""What stands between the two layers of a block's MLP. The backward pass needs the input alone.

GELU (its tanh form) is one pass already as PyTorch has it for GPUs. On CPUs it takes tanh from a library that takes six times as long as
the one that `torch.tanh` asks, so there it is made of several passes over as many rows as the cache holds. SwiGLU, `silu(a) * b` of the
halves a and b of its input, is two passes there and three back, and one each here.

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

from weber.kernels.library import define, widen

Activation = Literal["gelu", "swiglu"]

_FACTOR, _CUBIC = math.sqrt(2 / math.pi), 0.044715
"""GELU is x (1 + tanh(u)) / 2 with u = factor (x + cubic x^3)."""

_NUM_AT_ONCE = 2**16
"""Numbers, of which a few such tensors are in the cache."""

_NUM_SMALL = 2**18
"""For more numbers PyTorch's own backward pass of GELU takes no longer, unless what the forward pass made is kept."""


def activate(x: Tensor, kind: Activation) -> Tensor:
    """GELU: (N, M) to (N, M); SwiGLU: (N, 2 M) to (N, M)."""
    if kind == "gelu" and x.device.type == "cpu":
        return gelu_rows(x)
    result: Tensor = swiglu(x) if kind == "swiglu" else torch.ops.aten.gelu(x, approximate="tanh")
    return result


def activate_backward(grad: Tensor, x: Tensor, kind: Activation) -> Tensor:
    """The gradient of x."""
    if kind == "gelu" and x.device.type == "cpu" and x.numel() <= _NUM_SMALL:
        return gelu_rows_backward(grad, x)
    result: Tensor = swiglu_backward(grad, x) if kind == "swiglu" else torch.ops.aten.gelu_backward(grad, x, approximate="tanh")
    return result


def gelu_rows(x: Tensor) -> Tensor:
    """GELU in several passes. Of few numbers, what the backward pass makes again is in tensors that nothing else is written to, so that who
    records both can keep it; of many it is written over, which the cache likes better. The bits are the same."""
    half, out = _build_number(0.5), torch.empty(x.shape, dtype=x.dtype, device=x.device)
    for given, own in zip(_cut(x), _cut(out), strict=True):
        rows = widen(given)
        if x.numel() <= _NUM_SMALL:
            bent = _bend(rows)[2]
        else:
            bent = own if own.dtype == rows.dtype else torch.empty_like(rows)
            torch.addcmul(_build_number(_FACTOR, rows.dtype), rows, rows, value=_FACTOR * _CUBIC, out=bent)
            torch.addcmul(rows, rows, bent.mul_(rows).tanh_(), out=bent)
        torch.mul(bent, half, out=own) if bent.dtype == own.dtype else own.copy_(bent.mul_(half))
    return out


def gelu_rows_backward(grad: Tensor, x: Tensor) -> Tensor:
    """See `activate_backward`."""
    out = torch.empty(x.shape, dtype=x.dtype, device=x.device)
    for given, rows, own in zip(_cut(grad), _cut(x), _cut(out), strict=True):
        wide = widen(given)
        slope, tilted, bent = _bend(widen(rows))
        part = torch.add(_build_number(-2 * _FACTOR, slope.dtype), slope, alpha=3).mul_(bent)  # 2 u' x (1 + tanh(u)) / 2
        part = torch.addcmul(part, part, tilted, value=-1, out=part).add_(tilted)
        torch.addcmul(wide, wide, part, out=part)
        torch.mul(part, _build_number(0.5), out=own) if part.dtype == own.dtype else own.copy_(part.mul_(_build_number(0.5)))
    return out


def _bend(x: Tensor) -> tuple[Tensor, Tensor, Tensor]:
    """u / x, tanh(u), and twice the GELU."""
    slope = torch.addcmul(_build_number(_FACTOR, x.dtype), x, x, value=_FACTOR * _CUBIC)
    tilted = torch.tanh(slope * x)
    return slope, tilted, torch.addcmul(x, x, tilted)


def _cut(x: Tensor) -> Sequence[Tensor]:
    """So many rows, each time."""
    return torch.split(x.flatten(0, -2), max(1, _NUM_AT_ONCE // x.shape[-1]))


@cache
def _build_number(value: float, dtype: torch.dtype = torch.float64) -> Tensor:
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
