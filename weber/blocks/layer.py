"""What a linear layer is, as far as a block's own forward needs to know: a weight, a bias, and what adapters add.

Legend: O outputs, I inputs, R rank.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass

import torch
from torch import Tensor, nn

Unpack = Callable[[tuple[Tensor, ...], torch.dtype], Tensor]


@dataclass(frozen=True)
class Term:
    """`scale` x A^T B^T, with `down` A (R, I) and `up` B (O, R)."""

    scale: float
    down: Tensor
    up: Tensor


@dataclass(frozen=True)
class Layer:
    """x W^T + bias + all terms. `weights` is W (O, I), or where there is `unpack`, what that makes W from."""

    num_outputs: int
    weights: tuple[Tensor, ...]
    bias: Tensor | None
    terms: tuple[Term, ...] = ()
    unpack: Unpack | None = None

    def build_weight(self, dtype: torch.dtype) -> Tensor:
        """W (O, I); unpacked anew for whoever asks."""
        return self.weights[0] if self.unpack is None else self.unpack(self.weights, dtype)

    def list_tensors(self) -> Iterator[Tensor]:
        """All of them, in the order in which `replace_tensors` takes them."""
        yield from self.weights
        if self.bias is not None:
            yield self.bias
        for term in self.terms:
            yield term.down
            yield term.up

    def replace_tensors(self, tensors: Iterator[Tensor]) -> Layer:
        """The same layer of other tensors."""
        weights = tuple(next(tensors) for _ in self.weights)
        bias = None if self.bias is None else next(tensors)
        terms = tuple(Term(term.scale, next(tensors), next(tensors)) for term in self.terms)
        return Layer(self.num_outputs, weights, bias, terms, self.unpack)


class OwnForward:
    """A block that is run by operations of `weber/blocks`: it keeps what is costly to compute, and nothing else."""


class Readable(ABC):
    """A layer that says what it is."""

    @abstractmethod
    def read_layer(self) -> Layer | None:
        """As it is now; None where it is more than a layer, and has to be called."""


def read_layer(module: nn.Module) -> Layer | None:
    """What a module is, if it is a linear layer and nothing else."""
    if has_hooks(module):
        return None
    if isinstance(module, Readable):
        return module.read_layer()
    if type(module) is not nn.Linear:
        return None
    return Layer(module.out_features, (module.weight,), module.bias)


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


def read_layers(modules: Sequence[nn.Module]) -> list[Layer] | None:
    """All of them, or None where one is not plain."""
    layers = [read_layer(module) for module in modules]
    return None if any(layer is None for layer in layers) else [layer for layer in layers if layer is not None]


def has_hooks(module: nn.Module) -> bool:
    """Whether somebody wants to be called when a module is."""
    return bool(module._forward_hooks or module._forward_pre_hooks or module._backward_hooks)
