"""Layers that read the same input, one behind the other in memory: their product is then one (`weber/blocks/group.py`).

The layers keep their names and parameters, which are views.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence

import torch
from torch import nn


def join_layers(blocks: Iterable[nn.Module], groups: Sequence[Sequence[str]]) -> None:
    """Move the weights of the layers that a block has under all the names of a group.

    Packed layers stay as they are; a layer is moved once, with the first of its groups.
    """
    for block in blocks:
        modules = dict(block.named_modules())
        moved: set[str] = set()
        for names in groups:
            weights = [modules[name].weight for name in names if type(modules.get(name)) is nn.Linear]
            if len(weights) == len(names) and moved.isdisjoint(names):
                moved.update(names)
                joined = torch.cat([weight.detach() for weight in weights])
                for weight, part in zip(weights, joined.split_with_sizes([len(weight) for weight in weights]), strict=True):
                    weight.data = part
