"""Several processes of other trainers: each has its own pictures there, so a step has as many times more; what each holds is [parallel]."""

from __future__ import annotations

from typing import Any

from weber.config.importers.draft import Draft, Keys

DEVICES = 'parallel.devices = "auto" takes the GPUs that are here, and any number of them learns the same'
SHARDED = 'parallel.strategy = "auto" shards the blocks of a model that does not fit one GPU, and "fsdp" does so in any case'
MULTIPLIED = "train.accumulation is multiplied by it: a step has as many pictures, on any number of devices"


def set_accumulation(draft: Draft, keys: Keys, *, value: Any) -> str:
    """`gradient_accumulation_steps`, times the processes."""
    return _set(draft, keys, "gradient_accumulation_steps")


def set_processes(draft: Draft, keys: Keys, *, value: Any) -> str:
    """`num_processes`: the same."""
    return f"{_set(draft, keys, 'num_processes')}; {DEVICES}"


def _set(draft: Draft, keys: Keys, name: str) -> str:
    each, num = keys.read_int("gradient_accumulation_steps") or 1, keys.read_int("num_processes") or 1
    line = draft.set("train.accumulation", each * num, origin=keys.find(name))
    return line if num == 1 else f"{line}: {num} processes x {each}"
