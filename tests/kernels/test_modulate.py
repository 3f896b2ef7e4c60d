"""Norm and modulation: the reference against autograd, and the kernel against the reference."""

from __future__ import annotations

import pytest
import torch
from torch import Tensor
from torch.nn import functional

from tests.kernels.interpreter import Interpreter
from tests.kernels.near import check_near, deepen, draw
from weber.kernels.modulate import modulate, modulate_backward, sum_gradients

EPS = 1e-6
# batch, tokens, width; of scale and shift batch and tokens
SHAPES = [(1, 1, 64, 1, 1), (3, 7, 40, 3, 1), (3, 7, 40, 1, 1), (2, 33, 96, 2, 33), (2, 5, 48, 1, 5)]
SHAPES += [(1, 4608, 8, 1, 1), (1, 3, 3072, 1, 1)]
every_shape = pytest.mark.parametrize(("batch", "tokens", "width", "vectors", "groups"), SHAPES)
every_dtype = pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16], ids=["fp32", "bf16"])


def _build(batch: int, tokens: int, width: int, vectors: int, groups: int, dtype: torch.dtype) -> tuple[Tensor, ...]:
    """x and residual as slices along the tokens, scale and shift as parts of a longer vector, and a gradient."""
    x, residual = (3 + draw(batch, tokens + 4, width, seed=seed, dtype=dtype)[:, 3:-1] for seed in (1, 2))
    vector = draw(vectors, groups, 6 * width, seed=3, dtype=dtype)
    return x, vector[..., 2 * width : 3 * width], vector[..., :width], draw(batch, tokens, width, seed=4, dtype=dtype), residual


@every_shape
def test_the_reference_is_the_formula(batch: int, tokens: int, width: int, vectors: int, groups: int) -> None:
    x, scale, shift, grad, residual = (deepen(one) for one in _build(batch, tokens, width, vectors, groups, torch.float64))
    learns = [one.clone().requires_grad_() for one in (x, scale, shift)]
    wanted = functional.layer_norm(learns[0], (width,), eps=EPS) * (1 + learns[1]) + learns[2]
    x_grad, scale_grad, shift_grad = torch.autograd.grad(wanted, learns, grad)

    y, mean, rstd = modulate(x, scale, shift, EPS)
    torch.testing.assert_close(y, wanted.detach(), rtol=1e-9, atol=1e-9)
    torch.testing.assert_close(modulate_backward(grad, x, scale, mean, rstd, None), x_grad, rtol=1e-9, atol=1e-9)
    torch.testing.assert_close(modulate_backward(grad, x, scale, mean, rstd, residual), x_grad + residual, rtol=1e-9, atol=1e-9)
    for got, want in zip(sum_gradients(grad, x, mean, rstd, like=scale), (scale_grad, shift_grad), strict=True):
        torch.testing.assert_close(got, want, rtol=1e-9, atol=1e-9)


@every_dtype
@every_shape
def test_the_kernel_is_the_reference(
    interpret: Interpreter, batch: int, tokens: int, width: int, vectors: int, groups: int, dtype: torch.dtype
) -> None:
    x, scale, shift, grad, residual = _build(batch, tokens, width, vectors, groups, dtype)
    exact = modulate(deepen(x), deepen(scale), deepen(shift), EPS)
    (y, mean, rstd), _ = interpret("modulate", "modulate", x, scale, shift, EPS)
    assert (y.dtype, mean.dtype, rstd.dtype) == (dtype, torch.float32, torch.float32)
    for got, want in zip((y, mean, rstd), exact, strict=True):
        check_near(got, want)
    for beside in (None, residual):
        got, _ = interpret("modulate", "modulate_backward", grad, x, scale, mean, rstd, beside)
        deep = None if beside is None else deepen(beside)
        check_near(got, modulate_backward(deepen(grad), deepen(x), deepen(scale), *exact[1:], deep))
        assert got.dtype == dtype


def test_a_gradient_that_is_one_number_for_all(interpret: Interpreter) -> None:
    """As a sum makes it: no last dimension lies together."""
    x, scale, _, grad, _ = _build(1, 5, 32, 1, 1, torch.float32)
    grad = grad[:1, :1, :1].expand(1, 5, 32)
    _, mean, rstd = modulate(x, scale, scale, EPS)
    got, _ = interpret("modulate", "modulate_backward", grad, x, scale, mean, rstd, None)
    check_near(got, modulate_backward(deepen(grad), deepen(x), deepen(scale), deepen(mean), deepen(rstd), None))
