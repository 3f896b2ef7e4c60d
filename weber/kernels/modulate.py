"""Layer norm without weights, then a scale and a shift: how the noise level speaks to a block (Peebles and Xie 2022, "adaLN").

    y = (x - mean) * rstd * (1 + scale) + shift

Legend: B batch, S tokens, D width.
"""

from __future__ import annotations

import torch
from torch import Tensor

from weber.kernels.library import define, widen


def modulate_plain(x_BSD: Tensor, scale: Tensor, shift: Tensor, eps: float) -> tuple[Tensor, Tensor, Tensor]:
    """y in the dtype of x, and mean and rstd (B, S, 1) in fp32. scale and shift: (B or 1, S or 1, D)."""
    width = x_BSD.shape[-1]
    if scale.numel() == width:  # one for all tokens: the library's layer norm with weights, in one pass
        weight, bias = 1 + widen(scale.reshape(width)), widen(shift.reshape(width))
        return torch.native_layer_norm(x_BSD, (width,), weight, bias, eps)
    normed, mean, rstd = torch.native_layer_norm(widen(x_BSD), (width,), None, None, eps)
    return torch.addcmul(widen(shift), normed, 1 + widen(scale)).to(x_BSD.dtype), mean, rstd


def modulate_backward_plain(grad_BSD: Tensor, x_BSD: Tensor, scale: Tensor, mean: Tensor, rstd: Tensor, residual: Tensor | None) -> Tensor:
    """The gradient of x, plus `residual`: what came back to x beside the norm."""
    width = x_BSD.shape[-1]
    if scale.numel() == width:
        weight = 1 + widen(scale.reshape(width))
        grad = torch.ops.aten.native_layer_norm_backward(grad_BSD, x_BSD, (width,), mean, rstd, weight, weight, (True, False, False))[0]
    else:
        scaled = widen(grad_BSD) * (1 + widen(scale))
        grad = torch.ops.aten.native_layer_norm_backward(
            scaled, widen(x_BSD), (width,), mean, rstd, None, None, (True, False, False)
        )[0].to(x_BSD.dtype)
    return grad if residual is None else grad.add_(residual)  # type: ignore[no-any-return]


def _build_outputs(x_BSD: Tensor, scale: Tensor, shift: Tensor, eps: float) -> tuple[Tensor, Tensor, Tensor]:
    statistics = x_BSD.new_empty((*x_BSD.shape[:-1], 1), dtype=torch.promote_types(x_BSD.dtype, torch.float32))
    return torch.empty(x_BSD.shape, dtype=x_BSD.dtype, device=x_BSD.device), statistics, torch.empty_like(statistics)


modulate = define(
    "modulate",
    "(Tensor x, Tensor scale, Tensor shift, float eps) -> (Tensor, Tensor, Tensor)",
    plain=modulate_plain,
    fake=_build_outputs,
    gpu="modulate",
)
modulate_backward = define(
    "modulate_backward",
    "(Tensor grad, Tensor x, Tensor scale, Tensor mean, Tensor rstd, Tensor? residual) -> Tensor",
    plain=modulate_backward_plain,
    fake=lambda grad, x, scale, mean, rstd, residual: torch.empty(x.shape, dtype=x.dtype, device=x.device),
    gpu="modulate",
)


def sum_gradients(grad_BSD: Tensor, x_BSD: Tensor, mean: Tensor, rstd: Tensor, *, like: Tensor) -> tuple[Tensor, Tensor]:
    """The gradients of scale and shift, in the shape of scale (`like`); needed only where modulation learns."""
    own = widen(grad_BSD)
    normed = (widen(x_BSD) - mean) * rstd
    return (own * normed).sum_to_size(like.shape).to(like.dtype), own.sum_to_size(like.shape).to(like.dtype)
