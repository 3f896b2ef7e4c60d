"""SwiGLU: the reference against autograd, and the kernel against the reference."""

from __future__ import annotations

import pytest
import torch
from torch.nn import functional

from tests.kernels.interpreter import Interpreter
from tests.kernels.narrow import put_narrow
from tests.kernels.near import check_near, deepen, draw
from weber.blocks.record import Recorder
from weber.kernels.activate import Activation, activate, activate_backward, swiglu, swiglu_backward

SHAPES = [(1, 1, 16), (3, 7, 40), (1, 4608, 8), (2, 3, 1300), (11, 24)]
every_shape = pytest.mark.parametrize("shape", SHAPES, ids=str)


@pytest.mark.parametrize("kind", ["gelu", "swiglu"])
@every_shape
def test_the_reference_is_the_formula(kind: Activation, shape: tuple[int, ...]) -> None:
    x = deepen(draw(*shape[:-1], shape[-1] * (1 + (kind == "swiglu")), seed=1)).requires_grad_()
    gate, value = x.chunk(2, dim=-1)
    wanted = functional.silu(gate) * value if kind == "swiglu" else functional.gelu(x, approximate="tanh")
    grad = deepen(draw(*shape, seed=2))
    (x_grad,) = torch.autograd.grad(wanted, x, grad)
    torch.testing.assert_close(activate(x.detach(), kind), wanted.detach(), rtol=1e-9, atol=1e-9)
    torch.testing.assert_close(activate_backward(grad, x.detach(), kind), x_grad, rtol=1e-9, atol=1e-9)


@pytest.mark.parametrize("is_narrow", [True, False], ids=["narrow", "wide"])
@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16], ids=["fp32", "bf16"])
def test_gelu_of_each_kind_of_processor(dtype: torch.dtype, is_narrow: bool, monkeypatch: pytest.MonkeyPatch) -> None:
    """Of numbers of any size, and the same for who records what is done."""
    put_narrow(monkeypatch, is_narrow=is_narrow)
    ends = torch.tensor([0.0, -0.0, 1e-30, -1e-30, 50.0, -50.0, 1e4, -1e4]).repeat(8, 1)
    x = torch.cat([draw(8, 1000, seed=1, dtype=dtype) * 4, ends.to(dtype)], dim=1)
    found = activate(x, "gelu")
    exact = functional.gelu(deepen(x), approximate="tanh")
    assert found.dtype == dtype
    torch.testing.assert_close(found.double(), exact, rtol=1e-5 if dtype == torch.float32 else 2**-8, atol=1e-5)
    with Recorder([], most_bytes=0):
        recorded = activate(x, "gelu")
    assert torch.equal(recorded, found)


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16], ids=["fp32", "bf16"])
@every_shape
def test_the_kernel_is_the_reference(interpret: Interpreter, shape: tuple[int, ...], dtype: torch.dtype) -> None:
    """Of rows that are part of wider ones, and begin anywhere."""
    x = draw(*shape[:-1], 3 * shape[-1], seed=1, dtype=dtype)[..., shape[-1] - 3 : -3]
    grad = draw(*shape[:-1], shape[-1] + 8, seed=2, dtype=dtype)[..., 8:]
    got, _ = interpret("activate", "swiglu", x)
    check_near(got, swiglu(deepen(x)))
    got, _ = interpret("activate", "swiglu_backward", grad, x)
    check_near(got, swiglu_backward(deepen(grad), deepen(x)))
    assert got.dtype == dtype and got.is_contiguous()


def test_some_tokens_of_each_sample(interpret: Interpreter) -> None:
    x = draw(3, 9, 48)[:, 2:7]
    got, _ = interpret("activate", "swiglu", x)
    check_near(got, swiglu(deepen(x)))
