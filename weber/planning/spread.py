"""A run on several devices: whether each holds the whole model or a part of every block, and why; and what they send each other."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace

from weber.config.run import RunConfig
from weber.errors import ConfigError
from weber.memory.rates import GIB
from weber.parallel.devices import list_devices
from weber.planning.budget import Workload, build_estimate
from weber.planning.machine import Machine
from weber.planning.traffic import Demand, Links


@dataclass(frozen=True)
class Spread:
    """How many processes, what each holds, and why. `group`: how many hold all blocks between them, where they are sharded; `divided`: the
    text parts whose layers all hold between them while texts are encoded."""

    num_processes: int
    is_sharded: bool
    why: str
    group: int | None = None
    divided: frozenset[str] = frozenset()


def count_processes(config: RunConfig, machine: Machine) -> int:
    """How many processes train, as far as this process knows."""
    if config.parallel.num_devices is not None:
        return config.parallel.num_devices
    return 1 if machine.wish is not None else len(list_devices(config))


def choose_spread(config: RunConfig, workload: Workload, *, num_processes: int, num_near: int | None = None) -> Spread:
    """What the settings of [parallel] mean here. `num_near`: processes of each machine; None: all. Raises ConfigError where they cannot
    act."""
    divided = _choose_divided(config, replace(workload, num_processes=num_processes))
    workload = replace(workload, divided=divided)
    return replace(_choose_blocks(config, workload, num_processes=num_processes, num_near=num_near), divided=divided)


def _choose_divided(config: RunConfig, workload: Workload) -> frozenset[str]:
    """The text encoders of which each process has a part: those that do not fit a device."""
    asked, family = config.parallel.text_encoders, workload.family
    against = None
    if config.model.text_encoder_url is not None:
        against = "another machine encodes texts", "model.text_encoder_url"
    elif config.output.text_cache == "live":
        against = "each process encodes the texts of its own pictures while it trains", "output.text_cache"
    if asked == "sharded" and against is not None:
        what, key = against
        raise ConfigError(
            f"Text encoders cannot be sharded: {what}.",
            got='parallel.text_encoders = "sharded"',
            fix=f"remove parallel.text_encoders or {key}",
        )
    if asked == "sharded":
        return frozenset(family.text_parts)
    if asked == "whole" or against is not None or workload.num_processes == 1 or workload.device_bytes is None or config.memory.fit:
        return frozenset()
    sizes = {phase.name: phase.num_bytes for phase in build_estimate(config, workload).phases}
    return frozenset(part for part in family.text_parts if sizes.get(f"encoding captions ({part})", 0) > workload.device_bytes)


def _choose_blocks(config: RunConfig, workload: Workload, *, num_processes: int, num_near: int | None) -> Spread:
    if num_processes == 1:
        return Spread(1, False, "")
    group = config.train.batch_size * config.train.accumulation
    if num_processes > group:
        raise ConfigError(
            "Some processes would never have a picture.",
            got=f"{num_processes} processes, and steps of {group} pictures",
            expected="as many pictures in a step as processes, or more",
            fix=f"set train.accumulation to {-(-num_processes // config.train.batch_size)} or more, or start fewer",
        )
    strategy, against = config.parallel.strategy, next(_list_against(config), None)
    if strategy == "fsdp":
        _check_shards(config, workload)
        if against is not None:
            what, fix = against
            fix = f"{fix}, or remove parallel.strategy"
            raise ConfigError(f"Blocks cannot be sharded: {what}.", got='parallel.strategy = "fsdp"', fix=fix)
        return _choose_group(config, workload, Spread(num_processes, True, "as parallel.strategy says"), num_near=num_near)
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
    return _choose_group(config, workload, Spread(num_processes, True, fits), num_near=num_near)


def _choose_group(config: RunConfig, workload: Workload, spread: Spread, *, num_near: int | None) -> Spread:
    """Blocks come from the processes of a machine where those have room for all of them: then only gradients travel between machines."""
    num, asked = spread.num_processes, config.parallel.group
    if asked != "auto":
        if num % asked:
            raise ConfigError(
                "The processes cannot be divided into groups of that size.",
                got=f"parallel.group = {asked}, and {num} processes",
                expected=f"a number that {num} can be divided by, without remainder",
                fix=f"set parallel.group to {_find_divisor(num, asked)}, or remove it",
            )
        return replace(spread, group=asked)
    if num_near is None or not 1 < num_near < num or workload.device_bytes is None:
        return replace(spread, group=num)
    load = replace(workload, num_processes=num, is_sharded=True, group=num_near)
    peak = build_estimate(config, load).peak.num_bytes
    if peak > workload.device_bytes:
        return replace(spread, group=num, why=f"{spread.why}; the {num_near} of one machine do not hold it all, {peak / GIB:.1f} GiB each")
    return replace(spread, group=num_near, why=f"{spread.why}; the {num_near} of one machine hold it all, {peak / GIB:.1f} GiB each")


def _check_shards(config: RunConfig, workload: Workload) -> None:
    """Refuse settings of sharded blocks that cannot act on these."""
    if not config.parallel.reshard and config.adapter.kind != "full":
        raise ConfigError(
            "Blocks that stay whole would save nothing: they do not change, and each device has them whole with less memory otherwise.",
            got=f'parallel.reshard = false with adapter.kind = "{config.adapter.kind}"',
            fix='set parallel.strategy = "ddp" and remove parallel.reshard, or remove parallel.reshard alone',
        )

    if config.parallel.offload and workload.count_frozen_share() == 0:
        raise ConfigError(
            "Nothing of the blocks is frozen, so no part of them can lie in the memory of the host between the passes.",
            got=f'parallel.offload = true with adapter.kind = "{config.adapter.kind}"',
            fix='remove parallel.offload; optim.state_on = "host" moves what is larger',
        )


def _find_divisor(num: int, asked: int) -> int:
    """The largest that is no larger, but at least the smallest that is more than one."""
    divisors = [one for one in range(2, num + 1) if num % one == 0]
    return max((one for one in divisors if one <= asked), default=divisors[0])


def describe_spread(config: RunConfig, workload: Workload, *, spread: Spread) -> list[str]:
    """What a person should know of several devices; nothing of one."""
    if spread.num_processes == 1:
        return []
    held, rounds = "a part of every block (fsdp)" if spread.is_sharded else "the whole model (ddp)", workload.count_rounds(config)
    if spread.is_sharded and workload.num_near < spread.num_processes:
        held = f"{held[:-1]}, groups of {workload.num_near} that hold all of them)"
    if not config.parallel.reshard:
        held = f"{held}, and whole blocks in a step"
    if config.parallel.offload:
        held = f"{held}, which lies in the memory of the host"
    divided = ", ".join(part for part in workload.family.text_parts if part in spread.divided)
    why = "as parallel.text_encoders says" if config.parallel.text_encoders == "sharded" else "too large for one device"
    return [
        f"{spread.num_processes} devices, each with {held}: {spread.why}",
        *([f"while texts are encoded, each with a part of every layer of {divided}: {why}"] if divided else []),
        f"a step is the same {config.train.batch_size * config.train.accumulation} pictures as on one device, in"
        f" {rounds} round{'s' * (rounds > 1)} of micro-batches",
    ]


def describe_demands(demands: Sequence[Demand], step_seconds: float, *, links: Links) -> list[str]:
    """What a step needs beside its computing, what takes longest first."""
    lines = [
        f"{one.name}: {_write(one.num_bytes)} in a step, {one.seconds:.2g} s{' beside the computing' * one.is_beside}"
        for one in sorted(demands, key=lambda one: one.seconds, reverse=True)
        if one.num_bytes
    ]
    limit = find_limit(demands, step_seconds)
    said = "computing" if limit is None else limit.name
    network, disk = f"{links.network / 1e9:.3g} GB/s of network for each", f"{links.disk / 1e9:.0f} GB/s of disk"
    rates = f"{links.between / 1e9:.0f} GB/s between GPUs, {network}, {disk}"
    return [f"computing: {step_seconds:.2g} s of a step", *lines, f"what limits first: {said} (at {rates})"]


def find_limit(demands: Sequence[Demand], step_seconds: float) -> Demand | None:
    """What takes more of a step than its computing does; None where that takes most."""
    longest = max(demands, key=lambda one: one.seconds)
    return longest if longest.seconds > step_seconds else None


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
