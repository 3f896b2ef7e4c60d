"""What the backward pass computes again instead of keeping it: every block, every n-th, the cheap parts of each, or nothing."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import Any, Literal

import torch
from torch import nn
from torch.utils.checkpoint import checkpoint

from weber.families.family import Run, run_plainly
from weber.memory.lean import Lean

Mode = Literal["all", "none", "lean"] | int


def build_checkpointing(mode: Mode, *, blocks: Sequence[nn.Module], lean_layers: Mapping[str, str]) -> Run:
    """How blocks are run. `mode` n checkpoints every n-th of `blocks`, the last one of each n; `lean_layers` as in `Family`.

    Without gradients all run blocks plainly. Losses and gradients are those of the plain run, bit for bit.
    """
    if mode == "lean":
        return Lean(lean_layers)
    if mode == "none":
        return run_plainly
    return _Checkpointed(None if mode == "all" else blocks[mode - 1 :: mode])


class _Checkpointed:
    """Keeps the inputs of some blocks, or of all, and runs these again in the backward pass; other blocks are run plainly."""

    def __init__(self, blocks: Sequence[nn.Module] | None) -> None:
        self._blocks = None if blocks is None else set(blocks)
        self._has_dropout: dict[nn.Module, bool] = {}

    def __call__(self, block: nn.Module, call: Callable[..., Any], *inputs: Any) -> Any:
        """See `Run`."""
        if not torch.is_grad_enabled() or (self._blocks is not None and block not in self._blocks):
            return call(*inputs)
        if block not in self._has_dropout:
            self._has_dropout[block] = any(isinstance(module, nn.Dropout) and module.p > 0 for module in block.modules())
        # Saving the random state makes a GPU wait, and only dropout needs it.
        return checkpoint(call, *inputs, use_reentrant=False, preserve_rng_state=self._has_dropout[block])
