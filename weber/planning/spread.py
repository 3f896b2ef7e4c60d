"""A run on several devices: whether each holds the whole model or a part of every block, and why; and what they send each other."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, replace

from weber.config.run import RunConfig
from weber.errors import ConfigError
from weber.memory.rates import GIB
from weber.parallel.devices import list_devices
from weber.planning.budget import Workload, build_estimate
from weber.planning.machine import Machine
from weber.planning.traffic import Traffic, build_traffic

_SLOW = 0.1
"""Of the time of a step: what is sent is worth a word from there on."""


@dataclass(frozen=True)
class Spread:
    """How many processes, what each holds, and why."""

    num_processes: int
    is_sharded: bool
    why: str


def count_processes(config: RunConfig, machine: Machine) -> int:
    """How many processes train, as far as this process knows."""
    if config.parallel.num_devices is not None:
        return config.parallel.num_devices
    return 1 if machine.wish is not None else len(list_devices(config))


def choose_spread(config: RunConfig, workload: Workload, num_processes: int) -> Spread:
    """What `parallel.strategy` means here. Raises ConfigError where it cannot act."""
    if num_processes == 1:
        return Spread(1, False, "")
    strategy, against = config.parallel.strategy, next(_list_against(config), None)
    if strategy == "fsdp":
        if against is not None:
            what, fix = against
            fix = f"{fix}, or remove parallel.strategy"
            raise ConfigError(f"Blocks cannot be sharded: {what}.", got='parallel.strategy = "fsdp"', fix=fix)
        return Spread(num_processes, True, "as parallel.strategy says")
    whole = replace(workload, num_processes=num_processes)
    if strategy == "ddp":
        return Spread(num_processes, False, "as parallel.strategy says")
    if workload.device_bytes is None:
        return Spread(num_processes, False, "on a processor all share one memory")
    has_bytes, peak = workload.device_bytes, build_estimate(config, whole).peak.num_bytes
    fits = f"the whole model takes {peak / GIB:.1f} GiB at its peak of {has_bytes / GIB:.1f} GiB"
    if peak <= has_bytes or config.memory.fit is not None:
        return Spread(num_processes, False, fits)
    if against is not None:
        return Spread(num_processes, False, f"{fits}, and blocks cannot be sharded: {against[0]}")
    return Spread(num_processes, True, fits)


def describe_spread(config: RunConfig, workload: Workload, spread: Spread) -> list[str]:
    """What a person should know of several devices; nothing of one."""
    if spread.num_processes == 1:
        return []
    held = "a part of every block (fsdp)" if spread.is_sharded else "the whole model (ddp)"
    rounds = -(-config.train.accumulation // spread.num_processes)
    traffic, estimate = build_traffic(config, workload), build_estimate(config, workload)
    return [
        f"{spread.num_processes} devices, each with {held}: {spread.why}",
        f"a step is the same {config.train.batch_size * config.train.accumulation} pictures as on one device, in"
        f" {rounds} round{'s' * (rounds > 1)} of micro-batches",
        *_describe_traffic(traffic, estimate.time.seconds),
    ]


def _describe_traffic(traffic: Traffic, step_seconds: float) -> list[str]:
    lines = [f"each sends {_write(traffic.gradient_bytes)} of gradients in a step" + (
        f" and {_write(traffic.weight_bytes)} of weights" if traffic.weight_bytes else ""
    )]
    share = traffic.seconds / step_seconds if step_seconds else 0.0
    if share > _SLOW:
        lines.append(
            f"at {traffic.link / 1e9:.0f} GB/s, what a bus between GPUs carries, that takes {traffic.seconds:.2f} s of a step of"
            f" {step_seconds:.2f} s; a faster connection (NVLink) takes less"
        )
    return lines


def _list_against(config: RunConfig) -> Iterator[tuple[str, str]]:
    """Why blocks cannot be sharded, and what to change."""
    memory, is_full = config.memory, config.adapter.kind == "full"
    if memory.gradient_checkpointing != "all":
        yield 'what is kept of a block for the backward pass would keep its weights too', 'set memory.gradient_checkpointing = "all"'
    if memory.swap_blocks != 0:
        yield "swapped blocks lie in the memory of the host", "remove memory.swap_blocks"
    if memory.compile:
        yield "compiled blocks hold on to their weights", "remove memory.compile"
    if memory.modulation == "host":
        yield "layers that turn the noise level into scales lie in the memory of the host", "remove memory.modulation"
    if memory.fit is not None:
        yield "memory.fit chooses settings with which the whole model fits", "remove memory.fit"
    if config.objective.rollout is not None:
        yield "a rollout asks the network as often as each sample wants", "remove objective.rollout"
    if config.sampling.model is not None:
        yield "another model that paints is read whole", "remove sampling.model"
    if is_full and not config.optim.facts.is_own:
        yield f'optim.name = "{config.optim.name}" may look at all weights at once', 'set optim.name = "adamw_8bit"'
    if is_full and "ema" in (config.sampling.weights, config.evaluation.weights):
        yield "the running mean of sharded weights is in no one place", 'set sampling.weights and evaluation.weights to "trained"'


def _write(num_bytes: float) -> str:
    return f"{num_bytes / 1e9:.2f} GB" if num_bytes >= 1e9 else f"{num_bytes / 1e6:.2f} MB"
