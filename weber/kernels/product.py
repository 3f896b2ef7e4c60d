"""Products in fp32 on CPUs, by the library that is faster there.

PyTorch multiplies in fp32 by MKL, which takes AVX2 on processors of AMD even where they have AVX-512. oneDNN, which PyTorch brings
along too and takes for bf16, has no such rule: 230 to 250 GFLOP/s where MKL does 108, on one core of an EPYC of the fifth generation
(benchmarks/product.py). Which one is taken depends on the processor and on the factor alone: a product has the same bits in each run, and
a picture's the same beside others.

Legend: N rows, I inputs, O outputs.
"""

from __future__ import annotations

import platform
from functools import cache
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

_LEAST_EDGE, _LEAST_SIZE = 64, 128 * 128
"""Of a factor. Starting a product takes oneDNN 8 us more."""

_LEAST_COLUMNS_SIZE = 2**16
"""Of a weight whose gradient is computed: to read rows by columns takes oneDNN as long as it saves in smaller ones."""

_LEAST_ROWS = 16
"""Of fewer, or of one, sums are formed in another order; blocks have fewer in what belongs to a whole picture alone."""

_MOST_BYTES = 2**22
"""Of a sum that is made beside what it is added to: oneDNN cannot be told where to write. More is made in parts."""

_LEAST_AT_ONCE = 256
"""Rows in a part: with fewer, reading the factor for each would take as long as multiplying."""

_CPU_INFO = Path("/proc/cpuinfo")


def multiply(rows_NI: Tensor, factor_IO: Tensor, total_NO: Tensor | None = None) -> Tensor:
    """rows x factor, added to `total` where there is one: in its memory, or in other if that is little."""
    if not is_quicker(rows_NI, factor_IO):
        return torch.mm(rows_NI, factor_IO) if total_NO is None else torch.addmm(total_NO, rows_NI, factor_IO, out=total_NO)
    weight = _pack(factor_IO).t()
    if total_NO is None:
        return run_onednn(rows_NI, weight)
    if total_NO.nbytes <= _MOST_BYTES:
        return _run_and_add(rows_NI, weight, total_NO)
    num_rows = max(_LEAST_AT_ONCE, _MOST_BYTES * len(rows_NI) // total_NO.nbytes)
    for rows, own in zip(_cut(rows_NI, num_rows), _cut(total_NO, num_rows), strict=True):
        own.copy_(_run_and_add(rows, weight, own))
    return total_NO


def multiply_columns(grad_NO: Tensor, rows_NI: Tensor, out_OI: Tensor | None = None) -> Tensor:
    """grad^T x rows, the gradient of a weight; written to `out` where that is given."""
    num_outputs, num_inputs = grad_NO.shape[1], rows_NI.shape[1]
    is_large = num_outputs * num_inputs >= _LEAST_COLUMNS_SIZE and len(rows_NI) >= _LEAST_EDGE
    is_dense = grad_NO.is_contiguous() and rows_NI.is_contiguous()
    if not (is_large and is_dense and _is_ours(rows_NI)):
        return torch.mm(grad_NO.t(), rows_NI) if out_OI is None else torch.mm(grad_NO.t(), rows_NI, out=out_OI)
    made = run_onednn(grad_NO.t(), rows_NI.t())
    return made if out_OI is None else out_OI.copy_(made)


def is_quicker(rows_NI: Tensor, factor_IO: Tensor) -> bool:
    """Whether oneDNN multiplies these, rather than PyTorch as it likes."""
    (num_rows, num_inputs), num_outputs = rows_NI.shape, factor_IO.shape[1]
    is_large = min(num_inputs, num_outputs) >= _LEAST_EDGE and num_inputs * num_outputs >= _LEAST_SIZE
    return is_large and num_rows >= _LEAST_ROWS and rows_NI.stride(1) == 1 and _is_ours(rows_NI)


def _is_ours(rows: Tensor) -> bool:
    return rows.dtype == torch.float32 and rows.device.type == "cpu" and has_narrow_mkl()


@cache
def has_narrow_mkl() -> bool:
    """Whether MKL, if it is there, leaves the widest units of this processor idle."""
    if torch.backends.cpu.get_cpu_capability() != "AVX512" or not torch._C._has_mkldnn:
        return False
    name = _CPU_INFO.read_text(encoding="utf-8") if _CPU_INFO.exists() else platform.processor()
    return "AuthenticAMD" in name


def run_onednn(rows_NI: Tensor, weight_OI: Tensor, bias_O: Tensor | None = None) -> Tensor:
    """rows x weight^T + bias. Builds without oneDNN do not have it; weight and bias have to be dense, by rows or by columns."""
    operation: Any = torch.ops.mkldnn._linear_pointwise
    made: Tensor = operation.default(rows_NI, weight_OI, bias_O, "none", [], "")
    return made


def _run_and_add(rows_NI: Tensor, weight_OI: Tensor, total_NO: Tensor) -> Tensor:
    operation: Any = torch.ops.mkldnn._linear_pointwise
    made: Tensor = operation.binary(rows_NI, total_NO, weight_OI, None, "add")
    return made


def _cut(tensor: Tensor, num_rows: int) -> tuple[Tensor, ...]:
    """About so many at a time, none of them few."""
    return tensor.tensor_split(-(-len(tensor) // num_rows))


def _pack(factor: Tensor) -> Tensor:
    """Dense, by rows or by columns: of parts of a wider one oneDNN has nothing fast."""
    is_dense = factor.is_contiguous() or factor.t().is_contiguous()
    return factor if is_dense else factor.contiguous()
