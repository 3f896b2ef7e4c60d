"""Whole updates of one parameter, a piece at a time, so that what is held beside its tensors stays small."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from math import ceil, prod
from typing import Protocol

import torch
from torch import Tensor

from weber.optim.codecs import FP32, Codec
from weber.optim.rounding import draw_rounded
from weber.optim.rules import Move, build_direction, write_adafactor, write_factors

PIECE = 1 << 22
"""Numbers that are updated at once: 16 MiB for each of the up to eight fp32 tensors that this takes."""

State = Mapping[str, Tensor]
Specs = dict[str, tuple[tuple[int, ...], torch.dtype]]


class Method(Protocol):
    """A way to update a parameter. Its state may lie on another device than the parameter."""

    @property
    def precision(self) -> str:
        """Of the state."""

    def list_state(self, shape: Sequence[int]) -> Specs:
        """Shapes and dtypes of the state of a parameter, by name; it starts as zeros."""

    def write(self, parameter: Tensor, state: State, *, gradient: Tensor, move: Move) -> None:
        """Update parameter and state in place."""


@dataclass(frozen=True)
class Elementwise:
    """Each number has moments of its own. `moments`: their names, and whether they can be negative."""

    rule: Callable[..., None]
    moments: Mapping[str, bool]
    codec: Codec

    @property
    def precision(self) -> str:
        """Of the state."""
        return self.codec.precision

    def list_state(self, shape: Sequence[int]) -> Specs:
        """See `Method`."""
        num = prod(shape)
        return {
            f"{name}{part.end}": (tuple(shape) if part.share == 1 else (ceil(num / part.share),), part.dtype)
            for name in self.moments
            for part in self._choose(num).parts
        }

    def write(self, parameter: Tensor, state: State, *, gradient: Tensor, move: Move) -> None:
        """See `Method`."""
        codec = self._choose(parameter.numel())
        homes = {
            name: [torch.split(state[f"{name}{part.end}"].view(-1), PIECE // part.share) for part in codec.parts] for name in self.moments
        }
        pairs = zip(torch.split(parameter.view(-1), PIECE), torch.split(gradient.reshape(-1), PIECE), strict=True)
        for place, (numbers, slopes) in enumerate(pairs):
            old = {name: [part[place].to(numbers.device, non_blocking=True) for part in parts] for name, parts in homes.items()}
            moments = {name: codec.decode(old[name], is_signed=is_signed) for name, is_signed in self.moments.items()}
            value = numbers.to(torch.float32, copy=True)
            self.rule(value, slopes.float(), moments=list(moments.values()), move=move)
            for name, is_signed in self.moments.items():
                new = codec.encode(moments[name], move.generator, is_signed=is_signed)
                for home, before, after in zip(homes[name], old[name], new, strict=True):
                    _put(home[place], after, old=before, move=move)
            _put_value(numbers, value, move)

    def _choose(self, num: int) -> Codec:
        return self.codec if num >= self.codec.min_numbers else FP32


class Factored:
    """Adafactor: of a second moment only a row and a column are kept (`rules.write_adafactor` says which variant it is).

    A tensor is the matrix of its first dimension and all others; a vector has one row, so that its second moment is kept whole.
    """

    precision = "fp32"

    def list_state(self, shape: Sequence[int]) -> Specs:
        """See `Method`."""
        num_rows = shape[0] if len(shape) > 1 else 1
        sizes = {"exp_avg_sq_row": num_rows, "exp_avg_sq_col": prod(shape) // num_rows}
        return {name: ((size,), torch.float32) for name, size in sizes.items()}

    def write(self, parameter: Tensor, state: State, *, gradient: Tensor, move: Move) -> None:
        """See `Method`."""
        homes = [state["exp_avg_sq_row"], state["exp_avg_sq_col"]]
        old = [home.to(parameter.device, non_blocking=True) for home in homes]
        row, column = (tensor.clone() for tensor in old)
        rows_at_once = max(1, PIECE // len(column))
        slopes = torch.split(gradient.reshape(len(row), -1), rows_at_once)
        row_mean = torch.cat([piece.float().square().mean(1) for piece in slopes])
        column_mean = torch.stack([piece.float().square().sum(0) for piece in slopes]).sum(0) / len(row)
        write_factors(row, column, row_mean=row_mean, column_mean=column_mean, move=move)
        row_scale = row.mean().clamp(min=move.eps**2)

        def direct(piece: Tensor, rows: Tensor) -> Tensor:
            return build_direction(piece.float(), rows, row_scale=row_scale, column=column, move=move)

        pieces = list(zip(slopes, torch.split(row, rows_at_once), strict=True))
        mean_square = torch.stack([direct(*piece).square_().sum() for piece in pieces]).sum() / parameter.numel()
        for numbers, piece in zip(torch.split(parameter.view(len(row), -1), rows_at_once), pieces, strict=True):
            value = numbers.to(torch.float32, copy=True)
            write_adafactor(value, direct(*piece), mean_square=mean_square, move=move)
            _put_value(numbers, value, move)
        for home, before, after in zip(homes, old, (row, column), strict=True):
            _put(home, after, old=before, move=move)


def _put_value(home: Tensor, value: Tensor, move: Move) -> None:
    new = draw_rounded(value, move.generator) if home.dtype == torch.bfloat16 else value
    _put(home, new, old=home, move=move)


def _put(home: Tensor, new: Tensor, *, old: Tensor, move: Move) -> None:
    """Replace what is at home, unless the gradient was not finite: chosen on the device, because asking it would stop the host."""
    if move.is_finite is not None:
        new = torch.where(move.is_finite, new, old)
    home.copy_(new, non_blocking=new.device.type == "cuda")
