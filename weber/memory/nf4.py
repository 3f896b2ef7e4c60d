"""nf4 as bitsandbytes has it: 16 levels that suit normally distributed weights, one scale per 64 of them, the scales in 8 bits.

Dettmers et al. 2023, arXiv:2305.14314 ("double quantization"). bitsandbytes packs on GPUs; on the CPU its way is 10 times slower than
the one here, which gives the same bytes.
"""

from __future__ import annotations

from collections.abc import Mapping
from functools import cache
from types import ModuleType

import torch
from torch import Tensor
from torch.nn.functional import pad

from weber.imports import load_module

BLOCK = 64
NESTED_BLOCK = 256
_NUM_CELLS = 4096


def pack_rows(weight: Tensor) -> dict[str, Tensor]:
    """The bytes of some rows (float, whole blocks) and the largest magnitude of each block, in fp32."""
    if weight.device.type != "cpu":
        packed, state = _load_library().quantize_4bit(weight, blocksize=BLOCK, quant_type="nf4")
        return {"packed": packed.view(len(weight), -1), "absmax": state.absmax}
    blocks = weight.reshape(-1, BLOCK).float()
    absmax = blocks.abs().amax(dim=1)
    values = (blocks * (1.0 / absmax.clamp(min=1e-38)).unsqueeze(1)).view(-1)
    # Which of the 15 boundaries lie below a value: those below its cell, and the one inside its cell if it is below the value.
    cells = (values * (_NUM_CELLS // 2) + _NUM_CELLS // 2).to(torch.int32)
    num_below, inside = _build_cells()
    indices = num_below.index_select(0, cells).add_(values > inside.index_select(0, cells))
    return {"packed": ((indices[::2] << 4) | indices[1::2]).view(len(weight), -1), "absmax": absmax}


def pack_scales(tensors: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """The second half of packing, over a whole weight: the scales of the blocks in 8 bits, with one scale per 256 of them."""
    absmax = tensors["absmax"]
    offset = absmax.mean()
    packed, state = _load_library().quantize_blockwise(absmax - offset, blocksize=NESTED_BLOCK)
    return {
        "packed": tensors["packed"],
        "absmax": packed,
        "nested_absmax": state.absmax,
        "nested_code": state.code,
        "offset": offset.view(1),
    }


def unpack(tensors: Mapping[str, Tensor], shape: tuple[int, int], dtype: torch.dtype) -> Tensor:
    """The weights, in `dtype` (fp32, bf16 or fp16)."""
    library = _load_library()
    scales = library.dequantize_blockwise(
        tensors["absmax"], absmax=tensors["nested_absmax"], code=tensors["nested_code"], blocksize=NESTED_BLOCK
    )
    state = library.QuantState(scales + tensors["offset"], shape=torch.Size(shape), dtype=dtype, blocksize=BLOCK, quant_type="nf4")
    weight: Tensor = library.dequantize_4bit(tensors["packed"].view(-1, 1), state)
    return weight


def packed_shapes(num_rows: int, num_columns: int) -> dict[str, tuple[tuple[int, ...], torch.dtype]]:
    """What packing gives for rows of whole blocks."""
    num_blocks = num_rows * num_columns // BLOCK
    return {
        "packed": ((num_rows, num_columns // 2), torch.uint8),
        "absmax": ((num_blocks,), torch.uint8),
        "nested_absmax": ((-(-num_blocks // NESTED_BLOCK),), torch.float32),
        "nested_code": ((256,), torch.float32),
        "offset": ((1,), torch.float32),
    }


def bound(weight: Tensor) -> Tensor:
    """Half of the widest gap between levels, times the block's scale, and what rounding that scale may add."""
    absmax = weight.reshape(-1, BLOCK).abs().amax(dim=1)
    apart = (absmax - absmax.mean()).abs()
    nested = pad(apart, (0, -len(apart) % NESTED_BLOCK)).view(-1, NESTED_BLOCK).amax(dim=1)
    scale_error = _measure_gap(_load_library().create_dynamic_map()) * nested.repeat_interleave(NESTED_BLOCK)[: len(apart)]
    error = 1.001 * (_measure_gap(_levels()) * absmax + scale_error)
    return error.repeat_interleave(BLOCK).view(weight.shape)


def _measure_gap(levels: Tensor) -> float:
    """The most that a number in -1..1 can be away from the nearest level."""
    return max(float(levels.diff().max()) / 2, 1 - float(levels.max()), 1 + float(levels.min()))


@cache
def _build_cells() -> tuple[Tensor, Tensor]:
    """-1..1 in cells: how many boundaries between levels lie in cells below, and the boundary inside (infinite where there is none)."""
    levels = _levels()
    boundaries = (levels[1:] + levels[:-1]) / 2
    cells = (boundaries * (_NUM_CELLS // 2) + _NUM_CELLS // 2).to(torch.int64)
    inside = torch.full((_NUM_CELLS + 1,), torch.inf).index_put_((cells,), boundaries)
    num_below = torch.bincount(cells + 1, minlength=_NUM_CELLS + 2)[: _NUM_CELLS + 1].cumsum(0).to(torch.uint8)
    return num_below, inside


def _levels() -> Tensor:
    levels: Tensor = _load_library().get_4bit_type("nf4", device="cpu")
    return levels


@cache
def _load_library() -> ModuleType:
    """bitsandbytes, imported when it is needed: it takes seconds."""
    return load_module("bitsandbytes.functional")
