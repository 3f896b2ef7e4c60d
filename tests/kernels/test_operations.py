"""What PyTorch knows of the operations: that fakes make what kernels make, that nothing else is changed, and where each has its kernel."""

from __future__ import annotations

import inspect
from importlib import import_module
from importlib.util import find_spec
from typing import Any

import pytest
import torch

from tests.kernels.near import draw
from weber.kernels.activate import swiglu, swiglu_backward
from weber.kernels.eight import rescale, round_rows
from weber.kernels.lowrank import gather, spread
from weber.kernels.modulate import modulate, modulate_backward
from weber.kernels.rotate import rotate, rotate_backward

FILES = {
    modulate: "modulate",
    modulate_backward: "modulate",
    rotate: "rotate",
    rotate_backward: "rotate",
    swiglu: "activate",
    swiglu_backward: "activate",
    spread: "lowrank",
    gather: "lowrank",
    round_rows: "eight",
    rescale: "eight",
}
every_operation = pytest.mark.parametrize("operation", FILES, ids=lambda operation: operation.name())


def _build(operation: Any, dtype: torch.dtype) -> tuple[Any, ...]:
    x = draw(2, 5, 24, dtype=dtype)
    vector = draw(2, 1, 48, dtype=dtype)
    pair, angles = draw(2, 5, 6, 8, dtype=dtype).unflatten(2, (3, 2))[:, :, :2], torch.polar(torch.ones(5, 4), draw(5, 4))
    weight, grad = draw(2, 8, dtype=dtype), draw(2, 2, 5, 8, dtype=dtype).transpose(1, 2)
    ups = [draw(16, 4, dtype=dtype), draw(8, 2, dtype=dtype)]
    _, mean, rstd = modulate(x, vector[..., :24], vector[..., 24:], 1e-6)
    return {
        modulate: (x, vector[..., :24], vector[..., 24:], 1e-6),
        modulate_backward: (x, x + 1, vector[..., :24], mean, rstd, x - 1),
        rotate: (pair, weight, angles, 1e-6, torch.empty_like(pair)),
        rotate_backward: (grad, grad + 1, pair, weight, angles, 1e-6, torch.empty_like(pair)),
        swiglu: (x,),
        swiglu_backward: (x[..., :12], x),
        spread: (draw(5, 6, dtype=dtype), ups, [None, draw(8, dtype=dtype)], [1.0, 0.5], [0, 4], draw(5, 24, dtype=dtype)),
        gather: ([draw(5, 20, dtype=dtype), draw(5, 4, dtype=dtype)], ups, [1.0, 0.5], [0, 4]),
        round_rows: (draw(5, 24, dtype=dtype), draw(24), 127.0, True),
        rescale: (torch.full((5, 24), 7, dtype=torch.int32), draw(5, 1), draw(24), draw(5, 24, dtype=dtype), True),
    }[operation]


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16], ids=["fp32", "bf16"])
@every_operation
def test_a_fake_is_as_the_real_one(operation: Any, dtype: torch.dtype) -> None:
    torch.library.opcheck(operation, _build(operation, dtype), test_utils=("test_schema", "test_faketensor"))


@pytest.mark.skipif(find_spec("triton") is None, reason="Triton exists for Linux only")
@every_operation
def test_the_kernel_has_the_name_and_the_arguments(operation: Any) -> None:
    name = operation.name().removeprefix("weber::")
    kernel = getattr(import_module(f"weber.kernels.triton.{FILES[operation]}"), name)
    plain = getattr(import_module(f"weber.kernels.{FILES[operation]}"), f"{name}_plain")
    assert list(inspect.signature(kernel).parameters) == list(inspect.signature(plain).parameters)
    assert len(inspect.signature(kernel).parameters) == len(operation._schema.arguments)
