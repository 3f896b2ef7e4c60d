"""Norm and rotation of queries and keys: the reference against autograd, and the kernel against the reference."""

from __future__ import annotations

import pytest
import torch
from torch import Tensor
from torch.nn import functional

from tests.kernels.interpreter import Interpreter
from tests.kernels.near import check_near, deepen, draw
from weber.kernels.rotate import rotate, rotate_backward, sum_weight_gradients

EPS = 1e-6
# batch, tokens, heads, width of a head
SHAPES = [(1, 1, 1, 16), (3, 5, 2, 16), (1, 37, 3, 24), (2, 3, 5, 96), (1, 9, 4, 128), (1, 4608, 1, 16)]
every_shape = pytest.mark.parametrize(("batch", "tokens", "heads", "width"), SHAPES)
every_dtype = pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16], ids=["fp32", "bf16"])


def _build(batch: int, tokens: int, heads: int, width: int, dtype: torch.dtype) -> tuple[Tensor, Tensor, Tensor, Tensor, Tensor]:
    """The pair as part of a projection, weights, angles of some of all tokens, and gradients as attention gives them."""
    pair = draw(batch, tokens, 5 * heads * width, seed=1, dtype=dtype).unflatten(-1, (5, heads, width))[:, :, :2]
    angles = torch.polar(torch.ones(tokens + 9, width // 2), draw(tokens + 9, width // 2, seed=2))[4 : tokens + 4]
    query_grad = draw(batch, heads, tokens + 3, width, seed=3, dtype=dtype).transpose(1, 2)[:, 3:]
    return pair, 1 + 0.3 * draw(2, width, seed=4, dtype=dtype), angles, query_grad, draw(batch, tokens, heads, width, seed=5, dtype=dtype)


def _make_room(pair: Tensor) -> Tensor:
    """Places in a joint tensor that has more tokens, and values beside queries and keys."""
    batch, tokens, _, heads, width = pair.shape
    return torch.zeros((batch, tokens + 2, 3, heads, width), dtype=pair.dtype)[:, 1:-1, :2]


def _turn(pair: Tensor, weight: Tensor, angles: Tensor) -> Tensor:
    """The formula, with the rotation written out."""
    normed = functional.rms_norm(pair, (pair.shape[-1],), eps=EPS) * weight[:, None]
    real, imaginary = normed.unflatten(-1, (-1, 2)).unbind(-1)
    cosine, sine = angles.real[:, None, None], angles.imag[:, None, None]
    return torch.stack([real * cosine - imaginary * sine, real * sine + imaginary * cosine], dim=-1).flatten(-2)


@every_shape
def test_the_reference_is_the_formula(batch: int, tokens: int, heads: int, width: int) -> None:
    pair, weight, angles, query_grad, key_grad = (deepen(one) for one in _build(batch, tokens, heads, width, torch.float64))
    learns = [pair.clone().requires_grad_(), weight.clone().requires_grad_()]
    wanted = _turn(*learns, angles)
    pair_grad, weight_grad = torch.autograd.grad(wanted, learns, torch.stack([query_grad, key_grad], dim=2))

    out = _make_room(pair)
    rotate(pair, weight, angles, EPS, out)
    torch.testing.assert_close(out, wanted.detach(), rtol=1e-9, atol=1e-9)
    rotate_backward(query_grad, key_grad, pair, weight, angles, EPS, out)
    torch.testing.assert_close(out, pair_grad, rtol=1e-9, atol=1e-9)
    torch.testing.assert_close(sum_weight_gradients(query_grad, key_grad, pair, angles, EPS), weight_grad, rtol=1e-9, atol=1e-9)


@every_dtype
@every_shape
def test_the_kernel_is_the_reference(
    interpret: Interpreter, batch: int, tokens: int, heads: int, width: int, dtype: torch.dtype
) -> None:
    pair, weight, angles, query_grad, key_grad = _build(batch, tokens, heads, width, dtype)
    deep = [deepen(one) for one in (pair, weight, angles)]
    exact = _make_room(deep[0])
    rotate(*deep, EPS, exact)
    _, (*_, out) = interpret("rotate", "rotate", pair, weight, angles, EPS, _make_room(pair))
    check_near(out, exact)
    rotate_backward(deepen(query_grad), deepen(key_grad), *deep, EPS, exact)
    _, (*_, out) = interpret("rotate", "rotate_backward", query_grad, key_grad, pair, weight, angles, EPS, _make_room(pair))
    check_near(out, exact)


def test_the_place_may_be_that_of_the_pair(interpret: Interpreter) -> None:
    pair, weight, angles, _, _ = _build(2, 5, 3, 16, torch.float32)
    exact = _make_room(pair)
    rotate(pair, weight, angles, EPS, exact)
    _, (*_, out) = interpret("rotate", "rotate", pair, weight, angles, EPS, pair)
    check_near(out, exact)
