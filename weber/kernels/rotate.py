"""RMS norm of queries and keys per head, then their rotation by position (Su et al. 2021, arXiv:2104.09864).

    y = rotate(x / sqrt(mean(x^2) + eps) * weight, angle)

Pairs of neighbours are complex numbers, so that rotating is multiplying. Queries and keys lie beside each other and are done in one pass.

Legend: B batch, S tokens, H heads, d width of a head, 2 queries and keys.
"""

from __future__ import annotations

import torch
from torch import Tensor

from weber.kernels.library import define, widen


def build_angles(rotary: tuple[Tensor, Tensor]) -> Tensor:
    """(S, d/2) complex64 from cosines and sines (S, d), each given twice, as diffusers makes them."""
    cosines, sines = rotary
    return torch.complex(cosines[:, ::2].contiguous(), sines[:, ::2].contiguous())


def rotate_plain(pair_BS2Hd: Tensor, weight_2d: Tensor, angles: Tensor, eps: float, out_BS2Hd: Tensor) -> None:
    """Writes into `out_BS2Hd`. All of it in fp32, rounded once."""
    pair = widen(pair_BS2Hd)
    normed = pair * _find_inverse(pair, eps) * widen(weight_2d[:, None])
    if out_BS2Hd.dtype == pair.dtype:
        torch.mul(_pair_up(normed), angles[:, None, None], out=_pair_up(out_BS2Hd))
    else:
        out_BS2Hd.copy_(torch.view_as_real(_pair_up(normed) * angles[:, None, None]).flatten(-2))


def rotate_backward_plain(
    grad_q_BSHd: Tensor, grad_k_BSHd: Tensor, pair_BS2Hd: Tensor, weight_2d: Tensor, angles: Tensor, eps: float, out_BS2Hd: Tensor
) -> None:
    """Writes the gradient of the pair into `out_BS2Hd`."""
    pair, grad = widen(pair_BS2Hd), turn_back(grad_q_BSHd, grad_k_BSHd, angles)
    inverse = _find_inverse(pair, eps)
    grad *= widen(weight_2d[:, None])
    along = (grad * pair).sum(-1, keepdim=True).mul_(inverse.square() / -pair.shape[-1])
    torch.addcmul(grad, pair, along, out=grad)
    if out_BS2Hd.dtype == pair.dtype:
        torch.mul(grad, inverse, out=out_BS2Hd)
    else:
        out_BS2Hd.copy_(grad.mul_(inverse))


def turn_back(grad_q_BSHd: Tensor, grad_k_BSHd: Tensor, angles: Tensor) -> Tensor:
    """The gradients before the rotation, (B, S, 2, H, d) in fp32."""
    batch, tokens, heads, width = grad_q_BSHd.shape
    wide = torch.promote_types(grad_q_BSHd.dtype, torch.float32)
    turned = torch.empty((batch, tokens, 2, heads, width), dtype=wide, device=grad_q_BSHd.device)
    back = angles[:, None].conj()
    for number, grad in enumerate((grad_q_BSHd, grad_k_BSHd)):
        torch.mul(_pair_up(widen(grad)), back, out=_pair_up(turned[:, :, number]))
    return turned


def sum_weight_gradients(grad_q_BSHd: Tensor, grad_k_BSHd: Tensor, pair_BS2Hd: Tensor, angles: Tensor, eps: float) -> Tensor:
    """The gradients (2, d) of the norms' weights, in fp32; needed only where they learn."""
    pair = widen(pair_BS2Hd)
    result: Tensor = (turn_back(grad_q_BSHd, grad_k_BSHd, angles) * pair * _find_inverse(pair, eps)).sum((0, 1, 3))
    return result


def _find_inverse(pair_BS2Hd: Tensor, eps: float) -> Tensor:
    inverse: Tensor = torch.linalg.vector_norm(pair_BS2Hd, dim=-1, keepdim=True).square_().div_(pair_BS2Hd.shape[-1]).add_(eps).rsqrt_()
    return inverse


def _pair_up(tensor: Tensor) -> Tensor:
    paired: Tensor = torch.view_as_complex(tensor.view(*tensor.shape[:-1], -1, 2))
    return paired


rotate = define(
    "rotate",
    "(Tensor pair, Tensor weight, Tensor angles, float eps, Tensor(a!) out) -> ()",
    plain=rotate_plain,
    fake=lambda pair, weight, angles, eps, out: None,
    gpu="rotate",
)
rotate_backward = define(
    "rotate_backward",
    "(Tensor grad_q, Tensor grad_k, Tensor pair, Tensor weight, Tensor angles, float eps, Tensor(a!) out) -> ()",
    plain=rotate_backward_plain,
    fake=lambda grad_q, grad_k, pair, weight, angles, eps, out: None,
    gpu="rotate",
)
