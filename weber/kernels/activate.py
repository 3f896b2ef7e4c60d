"""What stands between the two layers of a block's MLP. The backward pass needs the input alone.

GELU (its tanh form) is PyTorch's own kernel, which is one pass already. SwiGLU, `silu(a) * b` of the halves a and b of its input, is two
there and three back, and one each here.

Legend: N rows, M width of the MLP.
"""

from __future__ import annotations

from typing import Literal

import torch
from torch import Tensor
from torch.nn import functional

from weber.kernels.library import define

Activation = Literal["gelu", "swiglu"]


def activate(x: Tensor, kind: Activation) -> Tensor:
    """GELU: (N, M) to (N, M); SwiGLU: (N, 2 M) to (N, M)."""
    result: Tensor = swiglu(x) if kind == "swiglu" else torch.ops.aten.gelu(x, approximate="tanh")
    return result


def activate_backward(grad: Tensor, x: Tensor, kind: Activation) -> Tensor:
    """The gradient of x."""
    result: Tensor = swiglu_backward(grad, x) if kind == "swiglu" else torch.ops.aten.gelu_backward(grad, x, approximate="tanh")
    return result


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
