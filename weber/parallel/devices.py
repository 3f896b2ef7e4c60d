"""Which devices of this machine train a run."""

from __future__ import annotations

import torch

from weber.config.run import RunConfig
from weber.errors import ConfigError


def list_devices(config: RunConfig) -> list[int | None]:
    """The numbers of the GPUs, or None for each process on the CPU. Raises ConfigError where there are no such devices."""
    parallel, group = config.parallel, config.train.batch_size * config.train.accumulation
    is_gpu = config.memory.device in ("auto", "cuda") and torch.cuda.is_available()
    if not is_gpu:
        if isinstance(parallel.devices, list):
            raise _build_absent(parallel.devices, 0)
        return [None] * (parallel.num_devices or 1)
    count = torch.cuda.device_count()
    if isinstance(parallel.devices, list):
        absent = [number for number in parallel.devices if number >= count]
        if absent:
            raise _build_absent(absent, count)
        return list(parallel.devices)
    if parallel.num_devices is None:
        return list(range(1 if config.optim.fused_backward else min(count, group)))
    if parallel.num_devices > count:
        raise _build_absent(parallel.num_devices, count)
    return list(range(parallel.num_devices))


def check_alone(config: RunConfig) -> None:
    """Refuse settings of [parallel] that cannot act in one process."""
    if config.parallel.num_devices not in (None, 1):
        raise ConfigError(
            "Several devices are asked for, and this is one process.",
            got=f"parallel.devices = {config.parallel.devices}",
            expected="a process for each device",
            fix="start the run with `weber train`, which starts them, or set parallel.devices = 1",
        )
    for name, value in {"strategy": config.parallel.strategy, "text_encoders": config.parallel.text_encoders}.items():
        if value != "auto":
            raise ConfigError(
                "What each device holds can only be said where there are several.",
                got=f'parallel.{name} = "{value}", and one device trains',
                fix=f"remove parallel.{name}, or set parallel.devices",
            )


def choose_device(config: RunConfig) -> torch.device:
    """Where one of several processes computes: it sees one GPU alone."""
    is_gpu = config.memory.device in ("auto", "cuda") and torch.cuda.is_available()
    return torch.device("cuda", 0) if is_gpu else torch.device("cpu")


def _build_absent(asked: object, count: int) -> ConfigError:
    names = ", ".join(map(str, range(count)))
    return ConfigError(
        "This machine has no such device.",
        got=f"parallel.devices = {asked}",
        expected=f"GPUs {names}" if count else "no GPU is here",
        fix='set parallel.devices = "auto"; `weber launch` takes those of several machines',
    )
