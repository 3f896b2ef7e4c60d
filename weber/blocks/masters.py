"""Factors of adapters as products take them: copied from what learns in one pass for a block, not for each layer whenever it is used.

Gradients go to the masters. A copy holds for a forward pass and its backward pass, whatever moves the masters in between.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from itertools import groupby

import torch
from torch import Tensor

from weber.blocks.layer import Layer, Term

Pair = tuple[Tensor, Tensor]
"""A copy and its master."""


def build_copies(layers: Sequence[Layer]) -> tuple[list[Layer], list[Pair]]:
    """Layers whose terms have copies of their factors, and the copies. A's of as many inputs, one after the other, lie so in memory too;
    what is alone, and has the precision of the products, is its own copy."""
    pairs: list[Pair] = []
    copied: list[list[Term]] = [[] for _ in layers]
    terms = [(number, term, layer.dtype) for number, layer in enumerate(layers) for term in layer.terms]
    for (dtype, _), run in groupby(terms, key=lambda one: (one[2], one[1].down.shape[1])):
        own = list(run)
        pieces = [_copy([term.down for _, term, _ in own], dtype), *(_copy([term.up], dtype) for _, term, _ in own)]
        for place, (number, term, _) in enumerate(own):
            copies = pieces[0][place], pieces[1 + place][0]
            pairs += [pair for pair in zip(copies, (term.down, term.up), strict=True) if pair[0] is not pair[1]]
            copied[number].append(replace(term, copies=copies))
    return [replace(layer, terms=tuple(own)) for layer, own in zip(layers, copied, strict=True)], pairs


def has_moved(pairs: Sequence[Pair]) -> bool:
    """Whether the masters have gone to another device."""
    return any(copy.device != master.device for copy, master in pairs[:1])


@torch.no_grad()
def refresh_copies(pairs: Sequence[Pair]) -> None:
    """Copy all masters anew."""
    if pairs:
        copies, masters = zip(*pairs, strict=True)
        torch._foreach_copy_(copies, masters)


def _copy(factors: Sequence[Tensor], dtype: torch.dtype) -> Sequence[Tensor]:
    if len(factors) == 1 and factors[0].dtype == dtype:
        return factors
    return torch.split(torch.cat([one.detach() for one in factors]).to(dtype), [len(one) for one in factors])
