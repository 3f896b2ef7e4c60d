"""FLUX.1's modulation apart from its blocks: 27 % of the weights, fed by one vector per sample (performance.md 0.3).

`AdaLayerNormZero` and `AdaLayerNormZeroSingle` make shifts, scales and gates as `linear(silu(embedding))`. Here these linear layers are
taken out of the blocks and evaluated where they are, one block after the other: so the host works on the next block's while a GPU is
still busy with this one. The block gets the finished vector in the place of the embedding.

Legend: B batch, D width, M numbers that modulate a block: 12 D for double blocks, 3 D for single ones.
"""

from __future__ import annotations

from collections.abc import Iterable
from itertools import chain
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional


class Modulation(nn.Module):
    """The linear layers that modulate the blocks, in the order of the blocks; never moved."""

    def __init__(self, blocks: Iterable[nn.Module]) -> None:
        """Takes them out of the blocks; whoever runs these gives them what this module makes."""
        super().__init__()
        self.layers = nn.ModuleList(nn.ModuleList(_take_layers(block)) for block in blocks)
        self.device = next(chain(self.parameters(), self.buffers())).device

    def encode(self, embedding_BD: Tensor) -> Tensor:
        """What all the layers are fed, on their device."""
        return functional.silu(embedding_BD.to(self.device))

    def forward(self, number: int, vector_BD: Tensor, *, device: torch.device) -> Tensor:
        """(B, M) for one block, on the device where it runs, from what `encode` made."""
        layers = self.layers[number]
        assert isinstance(layers, nn.ModuleList)
        made_BM = torch.cat([layer(vector_BD) for layer in layers], dim=1)
        if device.type == "cuda" and made_BM.device.type == "cpu":
            made_BM = made_BM.pin_memory()  # so that the copy waits for nothing
        return made_BM.to(device, non_blocking=True)


class _Part(nn.Module):
    """In the place of a layer: its own part of what modulates the block."""

    def __init__(self, start: int, stop: int) -> None:
        super().__init__()
        self.start, self.stop = start, stop

    def forward(self, made_BM: Tensor) -> Tensor:
        return made_BM[:, self.start : self.stop]


def _take_layers(block: Any) -> list[nn.Linear]:
    from diffusers.models.transformers.transformer_flux import FluxTransformerBlock

    norms = [block.norm1, block.norm1_context] if isinstance(block, FluxTransformerBlock) else [block.norm]
    layers, start = [], 0
    for norm in norms:
        layer = norm.linear
        assert isinstance(layer, nn.Linear)
        layers.append(layer)
        norm.silu, norm.linear = nn.Identity(), _Part(start, start + layer.out_features)
        start += layer.out_features
    return layers
