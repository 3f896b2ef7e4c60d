"""Blocks with a forward of their own, and the one rule for which blocks that is.

A block is run by operations of this room where the library's class, with the library's processor, holds plain layers: linear ones, packed
ones, LoRA. Where anything else is on it (DoRA, a LyCORIS that builds weights, dropout, hooks), the library runs it.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from copy import copy
from typing import Any

from torch import Tensor, nn

from weber.blocks.layer import Layer, has_hooks, read_layer
from weber.blocks.masters import Pair, build_copies, has_moved, refresh_copies
from weber.blocks.replay import Replays


class OwnForward:
    """A block's own forward: `compute`, called as the family's `blocks.py` says.

    `keeps`: what is quick to compute again is kept all the same. `backend`: the one that attends; None: what the device has. `replays`:
    what was recorded of it.
    """

    compute: Callable[..., Any]
    keeps = True
    backend: str | None = None
    replays: Replays | None = None

    def __init__(self, block: nn.Module) -> None:
        self.block: Any = block

    def __call__(self, *inputs: Tensor) -> Any:
        """What the block makes of its inputs."""
        return self._compute(*inputs) if self.replays is None or not self.keeps else self.replays.run(self._compute, inputs)

    def _compute(self, *inputs: Tensor) -> Any:
        # The gradients of an input are summed here, and then once for all blocks: in the same order whether this is replayed or not.
        return self.compute(*(one.view_as(one) if one.requires_grad else one for one in inputs))

    def build_lean(self) -> OwnForward:
        """The same, but that it keeps as little as it can."""
        lean = copy(self)
        lean.keeps = False
        return lean


DEVICES = ("cpu", "cuda", "meta")
"""Where there are operations of `weber/kernels`."""

_NUM_STATES = 6  # with adapters, without, and one more; each while training and while painting

Build = Callable[[nn.Module, Sequence[Layer]], OwnForward]


class OwnBlocks:
    """Own forwards, each built once as long as its layers stay what they are."""

    def __init__(self, list_layers: Callable[[nn.Module], Sequence[nn.Module] | None], build: Build) -> None:
        """`list_layers`: all layers of a block, or None where it is not one that `build` knows; `build` gets them in that order."""
        self._list_layers, self._build = list_layers, build
        self._known: dict[nn.Module, list[tuple[list[Layer], OwnForward, list[Pair]]]] = {}
        self._plain: dict[nn.Module, Layer] = {}

    def find(self, block: nn.Module, backend: str | None = None) -> OwnForward | None:
        """A block's own forward as it is now, with attention of that backend; None where the library has to run it. What its adapters have
        learned until now holds for this forward pass and its backward pass."""
        modules = None if has_hooks(block) else self._list_layers(block)
        if modules is None:
            return None
        layers = []
        for module in modules:
            layer = self._read(module)
            if layer is None:
                return None
            layers.append(layer)
        if layers[0].weights[0].device.type not in DEVICES:
            return None
        known = self._known.setdefault(block, [])
        for others, own, pairs in known:
            is_same = own.backend == backend and all(one is other for one, other in zip(layers, others, strict=True))
            if is_same and not has_moved(pairs):
                refresh_copies(pairs)
                return own
        if len(known) == _NUM_STATES:
            known.clear()
        copied, pairs = build_copies(layers)
        own = self._build(block, copied)
        own.backend = backend
        tensors = [*block.parameters(), *block.buffers(), *(one for layer in layers for one in layer.list_tensors())]
        own.replays = Replays(list({id(one): one for one in tensors}.values()))
        known.append((layers, own, pairs))
        return own

    def _read(self, module: nn.Module) -> Layer | None:
        layer = read_layer(module, self._plain.get(module))
        if layer is not None and type(module) is nn.Linear:
            self._plain[module] = layer
        return layer
