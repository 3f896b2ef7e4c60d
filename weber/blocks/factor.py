"""The weight of a layer as products take it: W itself, or packed, for rows that are rounded to 8 bits first.

Legend: N rows, O outputs, I inputs.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from dataclasses import dataclass, field

import torch
from torch import Tensor

from weber.blocks.layer import EightBits, Rounded
from weber.kernels.eight import rescale
from weber.kernels.product import is_quicker, multiply

ALL = slice(None)
"""All rows, or all columns."""


@dataclass(frozen=True)
class Rows:
    """Rows (N, I) that several layers read; what they are rounded to is found once for all."""

    plain: Tensor
    _rounded: dict[object, Rounded] = field(default_factory=dict)

    def round(self, product: EightBits, scale: Tensor | None = None) -> Rounded:
        """Rounded for a product; with `scale` (I,) multiplied by it first."""
        key = product, None if scale is None else id(scale)
        if key not in self._rounded:
            self._rounded[key] = product.round(self.plain, scale)
        return self._rounded[key]


class Factor(ABC):
    """W (O, I) in a product."""

    @abstractmethod
    def add(self, out: Tensor, rows: Rows, *, columns: slice = ALL, is_begun: bool) -> Tensor:
        """rows x W[:, columns]^T, added to what `out` (N, O) has where that has begun; in its memory, or in other."""

    @abstractmethod
    def pass_back(self, grad: Rows, total: Tensor | None, *, rows: slice = ALL, columns: slice = ALL) -> Tensor:
        """grad x W[rows, columns], added to `total` where there is one."""


@dataclass(frozen=True)
class Dense(Factor):
    """A weight of numbers as they are."""

    weight: Tensor

    def add(self, out: Tensor, rows: Rows, *, columns: slice = ALL, is_begun: bool) -> Tensor:
        """See `Factor`."""
        factor = (self.weight if columns is ALL else self.weight[:, columns]).t()
        if is_begun or is_quicker(rows.plain, factor):
            return multiply(rows.plain, factor, out if is_begun else None)
        return torch.mm(rows.plain, factor, out=out)

    def pass_back(self, grad: Rows, total: Tensor | None, *, rows: slice = ALL, columns: slice = ALL) -> Tensor:
        """See `Factor`."""
        factor = self.weight if columns is ALL and rows is ALL else self.weight[rows, columns]
        return multiply(grad.plain, factor, total)


@dataclass(frozen=True)
class Packed(Factor):
    """A weight of codes (O, I) with a scale per row (O,), multiplied as it is."""

    product: EightBits
    codes: Tensor
    scale: Tensor

    def add(self, out: Tensor, rows: Rows, *, columns: slice = ALL, is_begun: bool) -> Tensor:
        """See `Factor`."""
        rounded = rows.round(self.product)
        product = self.product.multiply(rounded.codes, self.codes[:, columns].t(), dtype=out.dtype)
        rescale(product, rounded.scale, self.scale, out, is_begun)
        return out

    def pass_back(self, grad: Rows, total: Tensor | None, *, rows: slice = ALL, columns: slice = ALL) -> Tensor:
        """See `Factor`; the scales go into the gradient, and are gone when that is rounded."""
        factor, rounded = self.codes[rows, columns].t().contiguous().t(), grad.round(self.product, self.scale[rows])
        product = self.product.multiply(rounded.codes, factor, dtype=grad.plain.dtype)
        out = product.new_empty(product.shape, dtype=grad.plain.dtype) if total is None else total
        rescale(product, rounded.scale, None, out, total is not None)
        return out
