"""Settings of memory that cannot act for this model, adapter or machine are refused here, before anything is loaded."""

from __future__ import annotations

from collections.abc import Sequence

import torch

from weber.config.memory import MemoryConfig
from weber.config.run import RunConfig
from weber.errors import ConfigError
from weber.families.family import Family
from weber.families.pattern import list_meant
from weber.planning.assistant import Frozen

_NUM_SHOWN = 3
_FP8 = (8, 9)


def check_memory(config: RunConfig, family: Family, *, device: torch.device, dtype: torch.dtype, modules: Sequence[str]) -> None:
    """Refuse what cannot act. `modules`: the layers that get an adapter, or the modules that are trained themselves."""
    num_blocks = len(family.blocks(family.build_predictor(family.skeleton)))
    _check_device(config, device)
    _check_quantize(config.memory, device)
    _check_blocks(config, num_blocks)
    _check_modulation(config.memory, family, modules, what="among the targets")
    if config.adapter.precision == "bf16" and dtype == torch.float32:
        raise ConfigError(
            "Weights in bf16 cannot be trained where everything is computed in fp32: they would be rounded and nothing gained.",
            got=f'adapter.precision = "bf16", and memory.dtype is fp32 on {device}',
            fix='set memory.dtype = "bf16", or remove adapter.precision',
        )


def _check_device(config: RunConfig, device: torch.device) -> None:
    """What moves bytes out of a GPU needs one."""
    if device.type == "cuda":
        return
    if config.optim.facts.needs_gpu:
        raise ConfigError(
            f"This optimizer runs on CUDA devices only, and the model runs on {device}.",
            got=f'optim.name = "{config.optim.name}"',
            fix='set optim.name = "adamw_8bit", whose state is as small and needs no GPU',
        )
    memory = config.memory
    settings = {
        f"memory.swap_blocks = {memory.swap_blocks!r}": memory.swap_blocks != 0 and memory.swap_to == "host",
        "memory.offload_activations = true": memory.offload_activations,
        'memory.modulation = "host"': memory.modulation == "host",
        "parallel.offload = true": config.parallel.offload,
        'optim.state_on = "host"': config.optim.state_on == "host",
        'optim.ema_on = "device"': config.optim.ema_on == "device",
    }
    idle = [text for text, is_set in settings.items() if is_set]
    if idle:
        raise ConfigError(
            f"This moves bytes between a GPU and the memory of the host, and the model runs on {device}, which has no memory of its own.",
            got=", ".join(idle),
            expected="a CUDA device",
            fix="remove it" + ('; or set memory.swap_to = "disk"' if memory.swap_blocks != 0 else ""),
        )


def _check_fp8(device: torch.device) -> None:
    """A GPU that is not here may be any."""
    capability = torch.cuda.get_device_capability(device) if device.type == "cuda" and torch.cuda.is_available() else None
    if device.type == "cuda" and (capability is None or capability >= _FP8):
        return
    what = f"the model runs on {device}" if capability is None else f"the GPU has {capability[0]}.{capability[1]}"
    raise ConfigError(
        f"Products of fp8 need tensor cores of a GPU of compute capability 8.9 or more, and {what}.",
        got="memory.fp8_matmul = true",
        expected="an RTX 40, an H100, or a later GPU",
        fix='remove memory.fp8_matmul; or set memory.quantize = "int8" and memory.int8_matmul = true',
    )


def _check_quantize(memory: MemoryConfig, device: torch.device) -> None:
    if device.type == "mps" and (memory.quantize in ("fp8", "nf4") or memory.int8_matmul):
        raise ConfigError(
            "This precision has no kernels on this device.",
            got=f"memory.quantize = {memory.quantize!r}, memory.int8_matmul = {memory.int8_matmul} on {device}",
            expected="int8, int4 or int2, computed in bf16 or fp32",
            fix='set memory.quantize = "int8"',
        )
    if memory.fp8_matmul:
        _check_fp8(device)
    if memory.quantize_on == "device" and device.type != "cuda":
        raise ConfigError(
            f"Layers are quantized by the processor here: the model runs on {device}, which is no GPU.",
            got='memory.quantize_on = "device"',
            fix="remove memory.quantize_on",
        )
    if memory.fit is not None:
        return  # it is not known yet what is quantized
    is_quantized = memory.quantize != "none" or memory.modulation == "int8"
    encoders = (memory.quantize_text_encoder, memory.quantize_text_encoder_2)
    if not is_quantized and not memory.keep_quantized:
        raise ConfigError(
            "No weights are quantized, so there are none to be kept.",
            got="memory.keep_quantized = false",
            fix="set memory.quantize, or remove memory.keep_quantized",
        )
    if not is_quantized and set(encoders) == {"none"} and memory.quantize_on != "auto":
        raise ConfigError(
            "No weights are quantized, so it does not matter where.",
            got=f"memory.quantize_on = {memory.quantize_on!r}",
            fix="set memory.quantize, or remove memory.quantize_on",
        )


def _check_blocks(config: RunConfig, num_blocks: int) -> None:
    memory = config.memory
    if memory.swap_blocks != "all" and memory.swap_blocks > num_blocks:
        raise ConfigError(
            "The model has fewer blocks.",
            got=f"memory.swap_blocks = {memory.swap_blocks}",
            expected=f'at most {num_blocks}, or "all"',
            fix=f"set memory.swap_blocks to {num_blocks // 2} or so",
        )
    if memory.swap_blocks != 0 and config.adapter.kind == "full" and not config.optim.fused_backward:
        raise ConfigError(
            "Weights that are trained can be swapped only if they are moved as soon as their gradient is there.",
            got=f"memory.swap_blocks = {memory.swap_blocks!r} with adapter.kind = \"full\"",
            fix="set optim.fused_backward = true, or remove memory.swap_blocks",
        )
    if memory.swap_to == "disk" and config.adapter.kind == "full":
        raise ConfigError(
            "Weights that are trained change in every step and are not kept on the disk.",
            got='memory.swap_to = "disk" with adapter.kind = "full"',
            fix="remove memory.swap_to",
        )
    every = memory.gradient_checkpointing
    if isinstance(every, int) and every > num_blocks:
        raise ConfigError(
            "The model has fewer blocks, so none would be checkpointed.",
            got=f"memory.gradient_checkpointing = {every}",
            expected=f"at most {num_blocks}",
            fix='set it to 2, or to "all"',
        )
    if every == "lean" and config.adapter.has_dropout:
        dropout = config.adapter.dropout
        raise ConfigError(
            "Lean checkpointing computes cheap things again and would draw another dropout.",
            got='memory.gradient_checkpointing = "lean" with '
            + (f"adapter.dropout = {dropout}" if dropout else "dropout in adapter.lycoris"),
            fix='set memory.gradient_checkpointing = "all", or remove the dropout',
        )


def check_frozen_memory(memory: MemoryConfig, family: Family, *, frozen: Sequence[Frozen]) -> None:
    """Refuse to move layers that frozen adapters are put on."""
    for one in frozen:
        _check_modulation(memory, family, list(one.modules), what=f"in {one.key}")


def _check_modulation(memory: MemoryConfig, family: Family, modules: Sequence[str], *, what: str) -> None:
    if memory.modulation == "model":
        return
    got = f"memory.modulation = {memory.modulation!r}"
    if not family.modulation_modules:
        raise ConfigError(
            f"The model {family.variant} has no modulation layers of its own in each block.", got=got, fix="remove memory.modulation"
        )
    trained = list_meant(modules, family.modulation_modules)
    if trained:
        raise ConfigError(
            "The modulation layers have adapters or are trained, so they have to stay as they are.",
            got=f"{got} with {', '.join(trained[:_NUM_SHOWN])} {what}",
            fix="remove memory.modulation, or choose targets and adapters without them",
        )
    if memory.modulation == "int8" and memory.quantize == "int8":
        raise ConfigError(
            "The modulation layers are quantized to int8 as all others are.",
            got=f'{got} with memory.quantize = "int8"',
            fix="remove memory.modulation",
        )
