"""Formats of frozen weights with few bits: what is stored for a linear layer, how it is made and how it is read.

| format | bits | stored |
|---|---|---|
| int8 | 8 | whole numbers -127..127, a scale per output row |
| fp8 | 8 | float8_e4m3fn, a scale per output row |
| nf4 | 4.127 | bitsandbytes' levels, see `nf4.py` |
| int4, int2 | 4.5, 2.5 | steps between the least and the largest of 64 weights, with that least weight and the step in bf16 |

Weights are (out, in). Rows are filled up to whole groups with their last weight, which changes no group's range. bf16 and not fp16 for
steps and least weights, for its range; both are rounded outward, so that no weight is cut off and the error stays half a step.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from functools import partial
from math import prod

import torch
from torch import Tensor

from weber.memory import nf4

GROUP = 64
Shapes = dict[str, tuple[tuple[int, ...], torch.dtype]]

_CPU_WEIGHTS, _GPU_WEIGHTS = 2**19, 2**26  # worked on at once: on a CPU what stays in its cache, which is several times faster
_TINY = 1e-30  # scale of rows and groups in which all weights are equal
_INT8_MAX, _FP8_MAX = 127.0, 448.0
_FLOATS = (torch.float32, torch.bfloat16, torch.float16)


def _find(name: str) -> Format:
    return FORMATS[name]


def _keep(tensors: dict[str, Tensor]) -> dict[str, Tensor]:
    return tensors


@dataclass(frozen=True, kw_only=True)
class Format:
    """One way to store a frozen weight (out, in). The functions see rows of whole groups.

    `quantize` gets some rows in fp32 and gives tensors whose first dimension runs over rows or groups; `finish` sees all of them.
    """

    name: str
    summary: str
    group: int
    quantize: Callable[[Tensor], dict[str, Tensor]]
    dequantize: Callable[[Mapping[str, Tensor], tuple[int, int], torch.dtype], Tensor]
    shapes: Callable[[int, int], Shapes]
    error: Callable[[Tensor], Tensor]
    finish: Callable[[dict[str, Tensor]], dict[str, Tensor]] = _keep

    @torch.no_grad()
    def pack(self, weight: Tensor) -> dict[str, Tensor]:
        """Named tensors on the weight's device, of the shapes that `packed_shapes` says; `packed` is the largest."""
        if weight.is_meta:
            shapes = self.packed_shapes(*weight.shape)
            return {name: torch.empty(shape, dtype=dtype, device="meta") for name, (shape, dtype) in shapes.items()}
        pieces = [self.quantize(self._fill_up(weight[rows])) for rows in _split(*weight.shape, device=weight.device)]
        return self.finish({name: torch.cat([piece[name] for piece in pieces]) for name in pieces[0]})

    @torch.no_grad()
    def unpack(self, tensors: Mapping[str, Tensor], *, shape: tuple[int, int], dtype: torch.dtype) -> Tensor:
        """The weight (out, in) in `dtype`, computed in fp32 and rounded once."""
        if tensors["packed"].is_meta:
            return torch.empty(shape, dtype=dtype, device="meta")
        filled = (shape[0], self._count_filled(shape[1]))
        weight = self.dequantize(tensors, filled, dtype if dtype in _FLOATS else torch.float32)
        return weight[:, : shape[1]].to(dtype)

    def packed_shapes(self, num_out: int, num_in: int) -> Shapes:
        """Shape and dtype of every tensor that `pack` gives for a weight (num_out, num_in)."""
        return self.shapes(num_out, self._count_filled(num_in))

    def num_bytes(self, num_out: int, num_in: int) -> int:
        """Bytes of a packed weight."""
        return sum(prod(shape) * dtype.itemsize for shape, dtype in self.packed_shapes(num_out, num_in).values())

    @property
    def bits(self) -> float:
        """Bits per weight of a large layer."""
        return 8 * self.num_bytes(4096, 4096) / 4096**2

    @torch.no_grad()
    def bound(self, weight: Tensor) -> Tensor:
        """The largest error that each weight may have when it is unpacked in fp32, as (out, in)."""
        return self.error(self._fill_up(weight))[:, : weight.shape[1]]

    def __reduce__(self) -> tuple[Callable[[str], Format], tuple[str]]:
        return _find, (self.name,)  # so that copies of a layer have the same format

    def _count_filled(self, num_in: int) -> int:
        return num_in + -num_in % self.group

    def _fill_up(self, rows: Tensor) -> Tensor:
        rows = rows.float()
        missing = self._count_filled(rows.shape[1]) - rows.shape[1]
        return torch.cat([rows, rows[:, -1:].expand(-1, missing)], dim=1) if missing else rows


def _split(num_rows: int, num_columns: int, *, device: torch.device) -> Iterator[slice]:
    """Rows that are worked on together."""
    step = max(1, (_CPU_WEIGHTS if device.type == "cpu" else _GPU_WEIGHTS) // num_columns)
    return (slice(start, start + step) for start in range(0, num_rows, step))


def _scale_rows(weight: Tensor, largest: float) -> Tensor:
    return weight.abs().amax(dim=1).div_(largest).clamp_(min=_TINY)


def _quantize_int8(weight: Tensor) -> dict[str, Tensor]:
    scale = _scale_rows(weight, _INT8_MAX)
    return {"packed": (weight * (1 / scale).unsqueeze(1)).round_().to(torch.int8), "scale": scale}


def _quantize_fp8(weight: Tensor) -> dict[str, Tensor]:
    scale = _scale_rows(weight, _FP8_MAX)
    return {"packed": (weight * (1 / scale).unsqueeze(1)).to(torch.float8_e4m3fn).view(torch.uint8), "scale": scale}


def _dequantize_int8(tensors: Mapping[str, Tensor], shape: tuple[int, int], dtype: torch.dtype) -> Tensor:
    packed, scale = tensors["packed"], tensors["scale"].unsqueeze(1)
    weight = torch.empty(shape, dtype=dtype, device=packed.device)
    for rows in _split(*shape, device=packed.device):
        torch.mul(packed[rows], scale[rows], out=weight[rows])
    return weight


def _dequantize_fp8(tensors: Mapping[str, Tensor], shape: tuple[int, int], dtype: torch.dtype) -> Tensor:
    packed, scale = tensors["packed"].view(torch.float8_e4m3fn), tensors["scale"].unsqueeze(1)
    weight = torch.empty(shape, dtype=dtype, device=packed.device)
    for rows in _split(*shape, device=packed.device):
        weight[rows].copy_(packed[rows]).mul_(scale[rows])
    return weight


def _rows_shapes(dtype: torch.dtype, num_rows: int, num_columns: int) -> Shapes:
    return {"packed": ((num_rows, num_columns), dtype), "scale": ((num_rows,), torch.float32)}


def _bound_int8(weight: Tensor) -> Tensor:
    return (0.5001 * _scale_rows(weight, _INT8_MAX)).unsqueeze(1).expand(weight.shape)


def _bound_fp8(weight: Tensor) -> Tensor:
    """Three bits of mantissa, and 2^-9 as the smallest number."""
    return 1.0001 * torch.maximum(weight.abs() / 16, (_scale_rows(weight, _FP8_MAX) / 1024).unsqueeze(1))


def _draw_grid(weight: Tensor, bits: int) -> tuple[Tensor, Tensor, Tensor]:
    """Groups of weights, the least of each group and its step; both bf16, rounded so that the steps reach the largest weight."""
    groups = weight.reshape(len(weight), -1, GROUP)
    least = groups.amin(dim=2)
    least = (least - least.abs() * 2**-8).to(torch.bfloat16)
    step = (groups.amax(dim=2) - least) * ((1 + 2**-8) / (2**bits - 1))
    return groups, least, step.clamp_(min=_TINY).to(torch.bfloat16)


def _quantize_steps(weight: Tensor, *, bits: int) -> dict[str, Tensor]:
    groups, least, step = _draw_grid(weight, bits)
    values = (groups - least.unsqueeze(2)).mul_((1 / step.float()).unsqueeze(2)).round_().to(torch.int8)
    planes = values.view(torch.uint8).view(len(weight), 8 // bits, -1)
    packed = planes[:, 0]
    for number in range(1, 8 // bits):
        packed = packed | (planes[:, number] << (number * bits))
    return {"packed": packed, "step": step, "least": least}


def _dequantize_steps(tensors: Mapping[str, Tensor], shape: tuple[int, int], dtype: torch.dtype, *, bits: int) -> Tensor:
    """Each byte has one weight of every plane; planes lie side by side in the row, so that they are written in long runs."""
    kind = torch.promote_types(torch.bfloat16, dtype)  # fp16 has not the range of bf16
    packed, step, least = tensors["packed"], tensors["step"].to(kind).unsqueeze(2), tensors["least"].to(kind).unsqueeze(2)
    shifts = torch.arange(0, 8, bits, dtype=torch.uint8, device=packed.device).unsqueeze(1)
    weight = torch.empty(shape, dtype=dtype, device=packed.device)
    for rows in _split(*shape, device=packed.device):
        groups = weight[rows].view(-1, shape[1] // GROUP, GROUP)
        values = (packed[rows].unsqueeze(1) >> shifts).bitwise_and_(2**bits - 1).view(groups.shape)
        if packed.device.type == "cpu":  # where addcmul is not vectorized over groups
            groups.copy_(values.float().mul_(step[rows]).add_(least[rows]))
        else:
            torch.addcmul(least[rows], values, step[rows], out=groups)
    return weight


def _steps_shapes(num_rows: int, num_columns: int, *, bits: int) -> Shapes:
    groups = (num_rows, num_columns // GROUP)
    return {
        "packed": ((num_rows, num_columns * bits // 8), torch.uint8),
        "step": (groups, torch.bfloat16),
        "least": (groups, torch.bfloat16),
    }


def _bound_steps(weight: Tensor, *, bits: int) -> Tensor:
    groups, _, step = _draw_grid(weight, bits)
    return (0.501 * step.float()).unsqueeze(2).expand(groups.shape).reshape(weight.shape)


def _build_steps(name: str, summary: str, bits: int) -> Format:
    return Format(
        name=name,
        summary=summary,
        group=GROUP,
        quantize=partial(_quantize_steps, bits=bits),
        dequantize=partial(_dequantize_steps, bits=bits),
        shapes=partial(_steps_shapes, bits=bits),
        error=partial(_bound_steps, bits=bits),
    )


_ROWS = (
    Format(
        name="int8",
        summary="8 bits: whole numbers, a scale per row",
        group=1,
        quantize=_quantize_int8,
        dequantize=_dequantize_int8,
        shapes=partial(_rows_shapes, torch.int8),
        error=_bound_int8,
    ),
    Format(
        name="fp8",
        summary="8 bits: float8_e4m3fn, a scale per row",
        group=1,
        quantize=_quantize_fp8,
        dequantize=_dequantize_fp8,
        shapes=partial(_rows_shapes, torch.uint8),
        error=_bound_fp8,
    ),
    Format(
        name="nf4",
        summary="4.1 bits: bitsandbytes' levels for normally distributed weights",
        group=nf4.BLOCK,
        quantize=nf4.pack_rows,
        dequantize=nf4.unpack,
        shapes=nf4.packed_shapes,
        error=nf4.bound,
        finish=nf4.pack_scales,
    ),
    _build_steps("int4", "4.5 bits: 15 steps between the least and the largest of 64 weights", 4),
    _build_steps("int2", "2.5 bits: 3 steps between the least and the largest of 64 weights; quality suffers", 2),
)

FORMATS: dict[str, Format] = {row.name: row for row in _ROWS}
"""Every value of `memory.quantize` but `none`."""
