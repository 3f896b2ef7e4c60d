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
from weber.memory.movers import build_host, build_mover
from weber.memory.run import build_run
from weber.memory.swap import NUM_SLOTS, BlockSwap, choose_swapped
from weber.parallel.shards import Sharding, ShardMover
from weber.planning.assistant import Frozen
from weber.progress import Progress

SWAP_FOLDER = "swap"
"""Subfolder of `output.cache` for blocks that are swapped to the disk."""


@dataclass(frozen=True)
class Where:
    """Where a network computes, in which precision, and the cache folder. `sharding`: of its blocks over several processes."""

    device: torch.device
    dtype: torch.dtype
    cache: Path
    sharding: Sharding | None = None


@dataclass(frozen=True)
class Network:
    """A network that is ready to run; `swap` moves some of its blocks, if it has to: with `mover` from other processes."""

    predictor: Predictor
    swap: BlockSwap | None
    mover: ShardMover | None = None


def load_network(
    family: Family,
    memory: MemoryConfig,
    *,
    where: Where,
    trained: Container[str],
    put: Callable[[nn.Module], None],
    progress: Progress,
) -> Network:
    """Read the network; `put` puts adapters on its transformer, or frees the weights that learn.

    `trained`: names of weights that learn themselves and so are never packed.
    """
    skeleton, device = family.skeleton, where.device
    if where.sharding is not None:
        memory = memory.model_copy(update={"swap_blocks": "all"})
    names = list_blocks(family, skeleton)
    swapped = choose_swapped(len(names), memory.swap_blocks)
    own = [name for name, _ in skeleton.named_parameters() if name in trained]  # others are those of an adapter
    learns = any(name.startswith(f"{names[number]}.") for number in swapped for name in own)
    swap: BlockSwap | None = None
    shards: ShardMover | None = None

    def build_swap(predictor: Predictor) -> BlockSwap:
        nonlocal shards
        blocks, num_slots = family.blocks(predictor), NUM_SLOTS
        if where.sharding is not None:
            num_trained = [sum(one.requires_grad for one in block.parameters()) if learns else 0 for block in blocks]
            host = build_host(device) if where.sharding.offloads else None
            shards = ShardMover(where.sharding, device=device, num_trained=num_trained, host=host)
            num_slots = len(blocks) if where.sharding.keeps else NUM_SLOTS
        mover = shards or build_mover(device, folder=where.cache / SWAP_FOLDER if memory.swap_to == "disk" else None)
        return BlockSwap(blocks, swapped, device=device, mover=mover, num_slots=num_slots, is_trained=learns)

    def take_over(predictor: Predictor) -> Callable[[nn.Module], None]:
        nonlocal swap
        swap = build_swap(predictor)
        return swap.take

    predictor = load_predictor(
        family,
        device=device,
        dtype=where.dtype,
        memory=memory,
        trained=trained,
        swap=take_over if swapped and not learns else None,
        folder=where.cache,
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
    return Network(predictor, swap, shards)


def list_sharded(network: Network) -> dict[int, list[tuple[nn.Parameter, int]]]:
    """Of each block the tensors that are trained and sharded, and which process moves each."""
    swap, mover = network.swap, network.mover
    if swap is None or mover is None:
        return {}
    found: dict[int, list[tuple[nn.Parameter, int]]] = {}
    for place, layout in swap.layouts.items():
        trained = [one for one in layout.tensors if isinstance(one, nn.Parameter) and one.requires_grad and swap.is_trained]
        found[place] = list(zip(trained, mover.list_owners(place), strict=True))
    return found


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
