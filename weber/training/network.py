"""The network of a run as `[memory]` has it: read, what learns put on it, and its blocks where they are to be."""

from __future__ import annotations

from collections.abc import Callable, Container, Sequence
from dataclasses import dataclass
from pathlib import Path

import torch
from torch import nn

from weber.adapters.lora import add_frozen
from weber.config.memory import MemoryConfig
from weber.families.family import Family, Predictor
from weber.memory.load import list_blocks, load_predictor
from weber.memory.movers import build_mover
from weber.memory.run import build_run
from weber.memory.swap import BlockSwap, choose_swapped
from weber.planning.assistant import Frozen
from weber.progress import Progress

SWAP_FOLDER = "swap"
"""Subfolder of `output.cache` for blocks that are swapped to the disk."""


@dataclass(frozen=True)
class Network:
    """A network that is ready to run; `swap` moves some of its blocks, if it has to."""

    predictor: Predictor
    swap: BlockSwap | None


def load_network(
    family: Family,
    memory: MemoryConfig,
    *,
    device: torch.device,
    dtype: torch.dtype,
    trained: Container[str],
    put: Callable[[nn.Module], None],
    cache: Path,
    progress: Progress,
) -> Network:
    """Read the network; `put` puts adapters on its transformer, or frees the weights that learn.

    `trained`: names of weights that learn themselves and so are never packed.
    """
    skeleton = family.skeleton
    names = list_blocks(family, skeleton)
    swapped = choose_swapped(len(names), memory.swap_blocks)
    own = [name for name, _ in skeleton.named_parameters() if name in trained]  # others are those of an adapter
    learns = any(name.startswith(f"{names[number]}.") for number in swapped for name in own)
    swap: BlockSwap | None = None

    def build_swap(predictor: Predictor) -> BlockSwap:
        mover = build_mover(device, folder=cache / SWAP_FOLDER if memory.swap_to == "disk" else None)
        return BlockSwap(family.blocks(predictor), swapped, device=device, mover=mover, is_trained=learns)

    def take_over(predictor: Predictor) -> Callable[[nn.Module], None]:
        nonlocal swap
        swap = build_swap(predictor)
        return swap.take

    predictor = load_predictor(
        family,
        device=device,
        dtype=dtype,
        memory=memory,
        trained=trained,
        swap=take_over if swapped and not learns else None,
        folder=cache,
        progress=progress,
    )
    read = set(predictor.transformer.parameters())
    put(predictor.transformer)
    for parameter in predictor.transformer.parameters():
        if parameter not in read:
            parameter.data = parameter.data.to(device)  # of an adapter, which was put beside weights that are elsewhere
    if swapped and learns:
        swap = build_swap(predictor)  # now that it is known which weights learn
    predictor.run = build_run(memory, predictor, family=family, swap=swap)
    return Network(predictor, swap)


def build_put(put: Callable[[nn.Module], None], frozen: Sequence[Frozen]) -> Callable[[nn.Module], None]:
    """`put`, and then frozen adapters, which freeze nothing that learned before."""

    def put_both(transformer: nn.Module) -> None:
        put(transformer)
        learning = [parameter for parameter in transformer.parameters() if parameter.requires_grad]
        for one in frozen:
            add_frozen(transformer, one.modules, name=one.name, strength=one.strength)
        for parameter in learning:
            parameter.requires_grad_(True)  # PEFT freezes all that is no adapter

    return put_both
