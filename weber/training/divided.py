"""Text encoders that are too large for one device: each of several processes has a part of every layer while texts are encoded."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, replace
from functools import partial
from typing import Any

import torch
from torch import nn

from weber.cache.encode import Encoders
from weber.config.memory import MemoryConfig
from weber.memory.load import build_encoder_fill
from weber.memory.swap import BlockSwap
from weber.parallel.shards import Sharding, ShardMover
from weber.parallel.world import World
from weber.planning.encoders import list_precisions


@dataclass(frozen=True)
class Divided:
    """The text `parts` that all processes have between them. Each encodes texts of its own, and all run the encoder as often."""

    world: World
    parts: frozenset[str]

    def build_encoders(self, encoders: Encoders, memory: MemoryConfig) -> Encoders:
        """The same encoders, of which these parts are loaded so; all processes do that at once."""
        precisions = list_precisions(encoders.family, memory)

        def load(part: str) -> nn.Module:
            if part not in self.parts:
                return encoders.load(part)
            divide = partial(_divide, self.world, encoders.device)
            fill = build_encoder_fill(memory, precisions[part], device=encoders.device, divide=divide)
            with self.world.together():
                return encoders.family.load(part, device=encoders.device, dtype=encoders.dtype, fill=fill)

        return replace(encoders, load=load)

    def keep_pace(self, part: str, num_batches: int) -> int:
        """See `Pace`: as often as the process that has most to encode. Here a problem that another one has met before becomes known."""
        if part not in self.parts:
            return num_batches
        return max(int(one["batches"]) for one in self.world.agree(batches=num_batches))


def _divide(world: World, device: torch.device, layers: list[nn.Module]) -> Callable[[nn.Module], None]:
    """Layers that are put together in a slot before they run; what is returned takes over the weights of each."""
    mover = ShardMover(Sharding(world, world.size), device=device, num_trained=[0] * len(layers))
    swap = BlockSwap(layers, range(len(layers)), device=device, mover=mover)
    for layer in layers:
        layer.forward = partial(_run, swap, layer, layer.forward)
        layer._apply = partial(_stay, layer)  # type: ignore[method-assign]
    return swap.take


def _stay(layer: nn.Module, change: Callable[..., Any], recurse: bool = True) -> nn.Module:
    """In the place of what moves an encoder to its device as a whole: the bytes of this layer are where they are to be."""
    return layer


def _run(swap: BlockSwap, layer: nn.Module, call: Callable[..., Any], *inputs: Any, **named: Any) -> Any:
    return swap.call(layer, partial(call, **named), *inputs)
