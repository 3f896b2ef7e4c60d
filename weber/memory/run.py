"""How the blocks of a network are run: what is kept for the backward pass, and where it and the weights are meanwhile."""

from __future__ import annotations

from collections.abc import Callable
from contextlib import AbstractContextManager, nullcontext
from functools import partial
from typing import Any

import torch
from torch import nn

from weber.config.memory import MemoryConfig
from weber.families.family import Family, Predictor, Run
from weber.memory.checkpointing import build_checkpointing
from weber.memory.offload import build_offload
from weber.memory.swap import BlockSwap


def build_run(config: MemoryConfig, predictor: Predictor, *, family: Family, swap: BlockSwap | None = None) -> Run:
    """Checkpointing, with swapped blocks inside it, so that a block is there again when it is computed again.

    Activations are offloaded around it: what checkpointing keeps goes to the host.
    """
    blocks = family.blocks(predictor)
    checkpointed = build_checkpointing(config.gradient_checkpointing, blocks=blocks, lean_layers=family.lean_layers)
    if swap is None and not config.offload_activations:
        return checkpointed
    offload = build_offload(next(predictor.transformer.parameters()).device) if config.offload_activations else nullcontext()
    return partial(_run, checkpointed, swap, offload)


def _run(
    checkpointed: Run,
    swap: BlockSwap | None,
    offload: AbstractContextManager[Any],
    block: nn.Module,
    call: Callable[..., Any],
    *inputs: Any,
) -> Any:
    if swap is not None:
        call, inputs = partial(swap.call, block, call), swap.mark(block, inputs)
    if not torch.is_grad_enabled():
        return call(*inputs)
    with offload:
        return checkpointed(block, call, *inputs)
