"""What a linear layer is, as far as a block's own forward needs to know: a weight, a bias, and what adapters add.

Legend: O outputs, I inputs, R rank.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import NamedTuple, Protocol

import torch
from torch import Tensor, nn

Unpack = Callable[[tuple[Tensor, ...], torch.dtype], Tensor]


class Rounded(NamedTuple):
    """Rows (N, I) as codes of 8 bits with a scale each (N, 1)."""

    codes: Tensor
    scale: Tensor


class EightBits(Protocol):
    """Products of rows that are rounded to 8 bits with packed weights; of `least_rows` rows and more."""

    @property
    def least_rows(self) -> int: ...

    def round(self, rows: Tensor, factor: Tensor | None) -> Rounded:
        """Rows (N, I) of any float dtype, times `factor` (I,) where there is one."""
        ...

    def multiply(self, codes: Tensor, factor: Tensor, *, dtype: torch.dtype) -> Tensor:
        """Codes (N, I) x codes (I, O), whose columns lie in one piece: (N, O) without any scales. Sums that are not exact are rounded to
        `dtype`."""
        ...


@dataclass(frozen=True)
class Term:
    """`scale` x A^T B^T, with `down` A (R, I) and `up` B (O, R); `copies`: both as products take them (`masters.py`)."""

    scale: float
    down: Tensor
    up: Tensor
    copies: tuple[Tensor, Tensor] | None = None


@dataclass(frozen=True)
class Layer:
    """x W^T + bias + all terms, computed in `dtype`. `weights` is W (O, I), or where there is `unpack`, what that makes W from; with
    `product` codes (O, I) and scales (O,), which it multiplies as they are."""

    num_outputs: int
    dtype: torch.dtype
    weights: tuple[Tensor, ...]
    bias: Tensor | None
    terms: tuple[Term, ...] = ()
    unpack: Unpack | None = None
    product: EightBits | None = None

    def list_tensors(self) -> Iterator[Tensor]:
        """All of them: weights, bias, and A and B of each term."""
        yield from self.weights
        if self.bias is not None:
            yield self.bias
        for term in self.terms:
            yield term.down
            yield term.up


class Readable(ABC):
    """A layer that says what it is."""

    @abstractmethod
    def read_layer(self) -> Layer | None:
        """As it is now; None where it is more than a layer, and has to be called."""


def read_layer(module: nn.Module, known: Layer | None = None) -> Layer | None:
    """What a module is, if it is a linear layer and nothing else. `known`: what it was; the same object if that is what it is."""
    if has_hooks(module):
        return None
    if isinstance(module, Readable):
        # Of a class that was made of it, as LyCORIS does it, nobody knows what it is.
        return module.read_layer() if "read_layer" in vars(type(module)) else None
    if type(module) is not nn.Linear:
        return None
    weight, bias = module._parameters["weight"], module._parameters["bias"]
    assert weight is not None
    if known is not None and known.weights[0] is weight and known.bias is bias:
        return known
    return Layer(module.out_features, weight.dtype, (weight,), bias)


class ReadableNorm(ABC):
    """An RMS norm whose weight is used in another form than it is kept."""

    @abstractmethod
    def read_weight(self) -> Tensor:
        """As it is used."""


def read_norm(norm: nn.Module) -> Tensor:
    """The weight of an RMS norm."""
    weight = norm.read_weight() if isinstance(norm, ReadableNorm) else norm.weight
    assert isinstance(weight, Tensor)
    return weight


def has_hooks(module: nn.Module) -> bool:
    """Whether somebody wants to be called when a module is, or in its place."""
    hooks = module._forward_hooks or module._forward_pre_hooks or module._backward_hooks
    return bool(hooks) or "forward" in vars(module) or "parametrizations" in module._modules
