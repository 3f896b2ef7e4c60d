"""Products of 8 bits with packed weights: rows of the input are rounded to 8 bits with a scale of their own, and multiplied as they are.

| format | products | where | |
|---|---|---|---|
| int8 | `torch._int_mm`, exact sums in int32 | CPUs, GPUs since Turing | `memory.int8_matmul` |
| fp8 | `torch._scaled_mm` of e4m3, sums in fp32 | GPUs of compute capability 8.9 or more | `memory.fp8_matmul` |

cuBLAS has fp8 products with a scale per row on some of these GPUs only (not on 12.0: pytorch issue 192707), so scales are multiplied in
afterwards, for both.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import torch
from torch import Tensor

from weber.blocks.layer import Rounded
from weber.errors import ConfigError
from weber.kernels.eight import rescale, round_rows

LEAST_ROWS = 17
"""Fewer rows no GPU multiplies so."""


@dataclass(frozen=True)
class Product:
    """`largest`: what the largest magnitude of a row becomes; `multiple`: of inputs and outputs of a layer. See `EightBits`."""

    setting: str
    largest: float
    multiple: int
    is_whole: bool
    take: Callable[[Tensor, Tensor, torch.dtype], Tensor]
    least_rows: int = LEAST_ROWS

    def round(self, rows: Tensor, factor: Tensor | None = None) -> Rounded:
        """See `EightBits`."""
        return Rounded(*round_rows(rows, factor, self.largest, self.is_whole))

    def multiply(self, codes: Tensor, factor: Tensor, *, dtype: torch.dtype) -> Tensor:
        """See `EightBits`."""
        return self.take(codes, factor, dtype)


def _multiply_fp8(codes: Tensor, factor: Tensor, dtype: torch.dtype) -> Tensor:
    one, form = torch.ones(1, device=codes.device), torch.float8_e4m3fn
    product: Tensor = torch._scaled_mm(codes.view(form), factor.view(form), one, one, out_dtype=dtype)
    return product


PRODUCTS = {
    "int8": Product("memory.int8_matmul", 127.0, 8, is_whole=True, take=lambda codes, factor, dtype: torch._int_mm(codes, factor)),
    "fp8": Product("memory.fp8_matmul", torch.finfo(torch.float8_e4m3fn).max, 16, is_whole=False, take=_multiply_fp8),
}
"""By format."""


def multiply_packed(
    x: Tensor,
    factor: Tensor,
    *,
    form: str,
    row_factor: Tensor | None = None,
    column_scale: Tensor | None = None,
    bias: Tensor | None = None,
) -> Tensor:
    """x (..., K), times `row_factor` (K,), @ factor (K, N), whose columns lie in one piece, in 8 bits; in the dtype of x."""
    rounded = PRODUCTS[form].round(x.reshape(-1, x.shape[-1]), row_factor)
    product = PRODUCTS[form].multiply(rounded.codes, factor, dtype=x.dtype)
    result = product.new_empty(product.shape, dtype=x.dtype)
    rescale(product, rounded.scale, column_scale, result, False)
    if bias is not None:
        result += bias
    return result.view(*x.shape[:-1], -1)


def check_product(form: str, *, in_features: int, out_features: int) -> None:
    """Raises ConfigError where a layer of these sizes cannot be multiplied so."""
    product = PRODUCTS[form]
    if in_features % product.multiple or out_features % product.multiple:
        raise ConfigError(
            "A layer of the model cannot be multiplied in 8 bits.",
            got=f"{product.setting} = true and a layer with {in_features} inputs and {out_features} outputs",
            expected=f"inputs and outputs in multiples of {product.multiple}",
            fix=f"remove {product.setting}",
        )
