"""How an optimizer's moments are kept, as rows: fp32, bf16, or 8 bits per number."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from functools import cache
from types import ModuleType

import torch
from torch import Tensor

from weber.imports import load_module
from weber.optim.rounding import draw_rounded

BLOCK = 256
"""Numbers that share a scale."""


@dataclass(frozen=True)
class Part:
    """One of the tensors that numbers are kept as: the end of its name, its dtype, and how many numbers share one of its elements."""

    end: str
    dtype: torch.dtype
    share: int = 1


@dataclass(frozen=True)
class Codec:
    """A way to keep flat fp32 tensors, whether their numbers can be negative or not. Zeros in all parts mean zero.

    `decode(parts, is_signed=...)` makes a fresh fp32 tensor; `encode(value, generator, is_signed=...)` makes the parts. Tensors of fewer
    than `min_numbers` stay fp32.
    """

    precision: str
    parts: tuple[Part, ...]
    decode: Callable[..., Tensor]
    encode: Callable[..., list[Tensor]]
    min_numbers: int = 0


def _decode_plain(parts: list[Tensor], *, is_signed: bool) -> Tensor:
    return parts[0].to(torch.float32, copy=True)


def _encode_fp32(value: Tensor, generator: torch.Generator, *, is_signed: bool) -> list[Tensor]:
    return [value]


def _encode_bf16(value: Tensor, generator: torch.Generator, *, is_signed: bool) -> list[Tensor]:
    return [draw_rounded(value, generator)]


def _decode_blocks(parts: list[Tensor], *, is_signed: bool) -> Tensor:
    codes, scales = parts
    code = _load_map(is_signed, codes.device)
    value: Tensor = _load_functional().dequantize_blockwise(codes, absmax=scales, code=code, blocksize=BLOCK)
    return value if is_signed else value.square_()


def _encode_blocks(value: Tensor, generator: torch.Generator, *, is_signed: bool) -> list[Tensor]:
    value = value if is_signed else value.sqrt()
    codes, state = _load_functional().quantize_blockwise(value, code=_load_map(is_signed, value.device), blocksize=BLOCK)
    return [codes, state.absmax]


FP32 = Codec("fp32", (Part("", torch.float32),), _decode_plain, _encode_fp32)

BF16 = Codec("bf16", (Part("", torch.bfloat16),), _decode_plain, _encode_bf16)
"""With stochastic rounding: a mean that moves by a thousandth of itself would stand still with rounding to nearest."""

BLOCKS_8BIT = Codec(
    "8 bit", (Part("", torch.uint8), Part("_absmax", torch.float32, BLOCK)), _decode_blocks, _encode_blocks, min_numbers=4096
)
"""bitsandbytes' dynamic maps of 256 codes, scaled to the largest number of each block; the same limit for small tensors.

Dettmers et al. 2022, arXiv:2110.02861. But of numbers that are never negative (mean squares) it is the root that is kept, which halves
the decades that the codes must span: where the gradients of a block differ by 100, updates are 3 times nearer to those of fp32.
"""


@cache
def _load_functional() -> ModuleType:
    """bitsandbytes, imported when it is used."""
    return load_module("bitsandbytes.functional")


@cache
def _load_map(is_signed: bool, device: torch.device) -> Tensor:
    codes: Tensor = _load_functional().create_dynamic_map(signed=is_signed)
    return codes.to(device)
