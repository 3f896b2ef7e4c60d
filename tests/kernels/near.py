"""How near is near enough, and how tensors are drawn."""

from __future__ import annotations

import torch
from torch import Tensor


def draw(*shape: int, seed: int = 0, dtype: torch.dtype = torch.float32) -> Tensor:
    """Numbers that every precision can hold, so that all of them compute from the same."""
    numbers = torch.randn(shape, generator=torch.Generator().manual_seed(seed + 7919 * len(shape)))
    return numbers.bfloat16().to(dtype)


def check_near(got: Tensor, exact: Tensor) -> None:
    """1e-5 of the largest number; in bf16 beside that a rounding, which is at most 1/256 of each number."""
    assert got.shape == exact.shape and got.isfinite().all()
    off, allowed = (got.double() - exact.double()).abs(), 1e-5 * exact.abs().max().item()
    if got.dtype == torch.bfloat16:
        assert (off <= exact.double().abs() / 256 + allowed).all(), f"off by {off.max()}"
    else:
        assert off.max() <= allowed, f"off by {off.max()}, allowed are {allowed}"


def deepen(value: Tensor) -> Tensor:
    """In fp64."""
    return value.to(torch.complex128 if value.is_complex() else torch.float64)
