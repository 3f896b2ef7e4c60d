"""What would make a step faster: settings that act on what it waits for most, where there are any."""

from __future__ import annotations

from collections.abc import Callable, Mapping

import torch

from weber.families.attention import is_masked
from weber.memory.estimate import Estimate
from weber.memory.rates import MEMORY, PRODUCTS, STARTS
from weber.memory.simulate import ATTENTION
from weber.planning.plan import Plan

COPIES, PROCESSOR = "copies from the host", "the processor, which computes what is on the host"
"""What a step may wait for, beside what its computing is limited by."""

_MUCH = 0.1
"""The least share of a step that is worth a setting."""

_Advice = Callable[[Plan, Estimate], str | None]


def describe_faster(plan: Plan, estimate: Estimate, *, shares: Mapping[str, float]) -> str | None:
    """One sentence on the largest share of a step's time that a setting would make smaller; None where there is none."""
    for name in sorted((name for name, share in shares.items() if share >= _MUCH), key=lambda name: -shares[name]):
        for advise in _ADVICE[name]:
            found = advise(plan, estimate)
            if found is not None:
                return f"{name}: {found}"
    return None


def _find_step(plan: Plan) -> str | None:
    """Where passes are many and small: fewer and larger ones."""
    train = plan.config.train
    if max(plan.batches.group_sizes) <= train.batch_size and not _has_more(plan):
        return None
    if train.accumulation > 1:
        return "a larger train.batch_size and as much less train.accumulation is the same step in fewer passes, if memory allows it"
    return "a larger train.batch_size takes less time per picture, if memory allows it"


def _has_more(plan: Plan) -> bool:
    """Whether a bucket has more pictures than a step takes."""
    return max(plan.dataset.examples.count_uses().values()) > plan.config.train.batch_size * plan.config.train.accumulation


def _find_size(plan: Plan, estimate: Estimate) -> str:
    return "larger pictures (data.resolution) take hardly more time than these"


def _find_batch(plan: Plan, estimate: Estimate) -> str | None:
    return _find_step(plan)


def _find_batch_of_packed(plan: Plan, estimate: Estimate) -> str | None:
    """Packed weights are unpacked once per pass, however many pictures it has."""
    return None if plan.config.memory.quantize == "none" else _find_step(plan)


def _find_checkpointing(plan: Plan, estimate: Estimate) -> str | None:
    """Whether blocks are computed twice for no other reason than that nobody has said otherwise."""
    memory = plan.config.memory
    needs_it = memory.swap_blocks or memory.offload_activations
    if not _is_free(plan, estimate) or memory.gradient_checkpointing in ("none", "lean") or needs_it:
        return None
    mode = "none" if memory.compile else "lean"
    return f'memory.gradient_checkpointing = "{mode}" computes nothing twice that is costly, if memory allows it'


def _find_dtype(plan: Plan, estimate: Estimate) -> str | None:
    is_slow = plan.dtype == torch.float32 and plan.device.type == "cuda" and plan.config.memory.dtype == "fp32"
    return 'memory.dtype = "bf16" takes half the bytes, and products are many times as fast' if is_slow else None


def _find_plain(plan: Plan, estimate: Estimate) -> str | None:
    """What keeps blocks from being run by kernels of weber's own."""
    adapter = plan.config.adapter
    if plan.config.memory.compile or adapter.kind != "lora" or not (adapter.dora or adapter.has_dropout):
        return None
    return f"without adapter.{'dora' if adapter.dora else 'dropout'} blocks are run in fewer passes over memory"


def _find_attention(plan: Plan, estimate: Estimate) -> str | None:
    """What is for any GPU is slower than what is for this one."""
    is_slow = plan.config.memory.attention == "efficient" and plan.dtype == torch.bfloat16 and not is_masked(plan.family)
    return 'memory.attention = "auto" takes what is usually faster, where it is right' if is_slow else None


def _find_copies(plan: Plan, estimate: Estimate) -> str | None:
    memory, optim = plan.config.memory, plan.config.optim
    if _is_free(plan, estimate) and memory.swap_blocks:
        smaller = ', or memory.quantize = "int8", which copies half' if memory.quantize == "none" and plan.kind.is_adapter else ""
        return f"a lower memory.swap_blocks, if memory allows it{smaller}"
    if _is_free(plan, estimate) and memory.offload_activations:
        return "memory.offload_activations = false, if memory allows it"
    return 'optim.state_on = "device", if memory allows it' if optim.state_on == "host" else None


def _find_modulation(plan: Plan, estimate: Estimate) -> str | None:
    return 'memory.modulation = "int8", if memory allows it' if _is_free(plan, estimate) else None


def _find_fewer_tokens(plan: Plan, estimate: Estimate) -> str:
    return "nothing but smaller pictures (data.resolution) or a faster device"


def _is_free(plan: Plan, estimate: Estimate) -> bool:
    """Whether settings of memory are as they are because nobody has set them, not because they have to be."""
    has_bytes = plan.workload.device_bytes
    return plan.fit is None and (has_bytes is None or estimate.peak.num_bytes <= has_bytes)


_ADVICE: Mapping[str, tuple[_Advice, ...]] = {
    PRODUCTS: (_find_dtype, _find_checkpointing, _find_fewer_tokens),
    ATTENTION: (_find_dtype, _find_attention, _find_checkpointing, _find_fewer_tokens),
    MEMORY: (_find_dtype, _find_checkpointing, _find_plain, _find_batch_of_packed),
    STARTS: (_find_batch, _find_checkpointing, _find_size),
    COPIES: (_find_copies, _find_batch),
    PROCESSOR: (_find_modulation,),
}
"""What acts on each, the most useful first. Not `memory.int8_matmul`: its products are as much faster as they are said to be, but rounding
their factors, in several passes and by the library's blocks, takes more than that saves (half as long again, as is estimated for 12 billion
weights at 1024 pixels on an RTX 4090)."""
