"""What stands around a product in 8 bits: its rows are rounded before it, and its scales are multiplied in after it.

    round_rows:  scale_n = max |x_n| / largest, codes_n = x_n / scale_n, rounded
    rescale:     out = product * row scales * column scales, or added to what is there

Legend: N rows, I inputs, O outputs.
"""

from __future__ import annotations

import torch
from torch import Tensor

from weber.kernels.library import define, widen

TINY = 1e-30
"""The scale of a row of zeros."""


def round_rows_plain(x_NI: Tensor, factor_I: Tensor | None, largest: float, is_whole: bool) -> tuple[Tensor, Tensor]:
    """Codes (N, I) and scales (N, 1) fp32; of x times `factor` where there is one. `is_whole`: whole numbers, int8; else the bytes of
    float8_e4m3fn."""
    rows = x_NI if factor_I is None else x_NI * factor_I
    wide = torch.promote_types(rows.dtype, torch.float32)
    scale = torch.linalg.vector_norm(rows, torch.inf, dim=1, keepdim=True, dtype=wide).div_(largest).clamp_(min=TINY)
    codes = rows / scale
    return codes.round_().to(torch.int8) if is_whole else codes.to(torch.float8_e4m3fn).view(torch.uint8), scale


def rescale_plain(product_NO: Tensor, row_scale_N1: Tensor, column_scale_O: Tensor | None, out_NO: Tensor, is_begun: bool) -> None:
    """Writes all of `out` (N, O), or where it `is_begun` adds to it; computed in fp32, and rounded once."""
    found = product_NO * row_scale_N1
    if column_scale_O is not None:
        found *= column_scale_O
    if is_begun:
        out_NO.add_(found)
    else:
        out_NO.copy_(found)


def _build_rounded(x_NI: Tensor, factor_I: Tensor | None, largest: float, is_whole: bool) -> tuple[Tensor, Tensor]:
    codes = x_NI.new_empty(x_NI.shape, dtype=torch.int8 if is_whole else torch.uint8)
    return codes, widen(x_NI.new_empty((len(x_NI), 1), dtype=torch.promote_types(x_NI.dtype, torch.float32)))


round_rows = define(
    "round_rows",
    "(Tensor x, Tensor? factor, float largest, bool is_whole) -> (Tensor, Tensor)",
    plain=round_rows_plain,
    fake=_build_rounded,
    gpu="eight",
)
rescale = define(
    "rescale",
    "(Tensor product, Tensor row_scale, Tensor? column_scale, Tensor(a!) out, bool is_begun) -> ()",
    plain=rescale_plain,
    fake=lambda product, row_scale, column_scale, out, is_begun: None,
    gpu="eight",
)
