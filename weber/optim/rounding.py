"""bf16 numbers that are right on average, so that changes smaller than a bf16 step are not lost.

Stochastic rounding, as in Zamirai et al. 2020, arXiv:2010.06192.
"""

from __future__ import annotations

import torch
from torch import Tensor

_LOW_BITS = 1 << 16


def draw_rounded(value: Tensor, generator: torch.Generator) -> Tensor:
    """fp32 `value` in bf16, rounded up or down with the probability that makes it right on average."""
    bits = torch.randint(_LOW_BITS, value.shape, dtype=torch.int32, device=value.device, generator=generator)
    bits += value.contiguous().view(torch.int32)
    bits &= -_LOW_BITS
    return bits.view(torch.float32).to(torch.bfloat16)
