"""Whether a processor trains faster in bf16: layers and attention of a block of a run's sizes, timed in both precisions, taking turns."""

from __future__ import annotations

import time
from dataclasses import dataclass

import torch

from weber.kernels.attention import attend, attend_backward
from weber.kernels.product import multiply
from weber.progress import Progress, ignore_progress

LEAST_GAIN = 1.25
"""bf16 is taken where its time is below that of fp32 by this factor; what is nearer is decided by the noise of the clock."""

_LEAST_FLOPS = 1e9
"""A layer with less to compute is not tried: what stands between the products takes most of the time, and rounding gains nothing there."""
_MOST_TOKENS = 1024
_NUM_LAYERS = 3
"""Of four times the width for one attention: as many weights as a block has."""

_NUM_ROUNDS = 3
_PRECISIONS = (torch.float32, torch.bfloat16)


@dataclass(frozen=True)
class BlockSizes:
    """Of a run's largest step: image tokens of all its pictures, the numbers in a token, and heads."""

    num_tokens: int
    width: int
    num_heads: int

    @property
    def is_worth_trying(self) -> bool:
        """Whether products are most of the work."""
        return 8 * self.num_tokens * self.width**2 >= _LEAST_FLOPS


def has_bf16_units() -> bool:
    """Whether this processor multiplies in bf16 by itself (AVX-512 BF16, AMX)."""
    return bool(torch.cpu._is_avx512_bf16_supported() or torch.cpu._is_amx_tile_supported())


def measure_gain(sizes: BlockSizes, progress: Progress = ignore_progress) -> float:
    """Seconds in fp32 over those in bf16, of frozen layers of four times the width and of attention, both forward and backward.

    Of more than 1,024 tokens as many are taken. The best of three rounds of each counts.
    """
    best = dict.fromkeys(_PRECISIONS, float("inf"))
    for number in range(_NUM_ROUNDS + 1):  # the first one warms up
        for dtype in _PRECISIONS:
            seconds = _time_block(sizes, dtype)
            best[dtype] = min(best[dtype], seconds) if number else best[dtype]
        progress("trying precisions", number + 1, _NUM_ROUNDS + 1)
    return best[torch.float32] / best[torch.bfloat16]


def _time_block(sizes: BlockSizes, dtype: torch.dtype) -> float:
    """By what blocks of weber multiply and attend with."""
    num_tokens, width = min(sizes.num_tokens, _MOST_TOKENS), sizes.width
    weight = torch.full((4 * width, width), 0.01, dtype=dtype)
    tokens = torch.full((num_tokens, width), 0.5, dtype=dtype)
    heads = torch.full((1, sizes.num_heads, num_tokens, width // sizes.num_heads), 0.5, dtype=dtype)
    start = time.perf_counter()
    for _ in range(_NUM_LAYERS):
        multiply(multiply(tokens, weight.t()), weight)
    attend_backward(heads, heads, heads, heads, attend(heads, heads, heads))
    return time.perf_counter() - start
