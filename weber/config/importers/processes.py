"""Several processes of other trainers: each has its own pictures there, so a step has as many times more; what each holds is [parallel]."""

from __future__ import annotations

from typing import Any, NamedTuple

from weber.config.importers.draft import NO_EFFECT, Draft, Keys
from weber.config.importers.values import read_bool

DEVICES = 'parallel.devices = "auto" takes the GPUs that are here, and any number of them learns the same'
SHARDED = 'parallel.strategy = "auto" shards the blocks of a model that does not fit one GPU, and "fsdp" does so in any case'
STRATEGY = (
    'parallel.strategy: FULL_SHARD and ZeRO-3 are "fsdp"; SHARD_GRAD_OP, ZeRO-1 and ZeRO-2 are "fsdp" with parallel.reshard = false where'
    ' the model itself learns, and "ddp" with an adapter, of which nothing else is divided; NO_SHARD is "ddp"; HYBRID_SHARD adds'
    " parallel.group: the processes of a machine"
)
OFFLOADED = "parallel.offload, where blocks are frozen and sharded"
STATE = 'optim.state_on = "host" keeps the optimizer\'s state in the memory of the host'
UNCUT = "pictures are not cut over several devices (docs/parallel.md says why); parallel.strategy says what is"
MULTIPLIED = "train.accumulation is multiplied by it: a step has as many pictures, on any number of devices"


def set_accumulation(draft: Draft, keys: Keys, *, value: Any) -> str:
    """`gradient_accumulation_steps`, times the processes."""
    return _set(draft, keys, "gradient_accumulation_steps")


def set_processes(draft: Draft, keys: Keys, *, value: Any) -> str:
    """`num_processes`: the same."""
    return f"{_set(draft, keys, 'num_processes')}; {DEVICES}"


class _Asked(NamedTuple):
    """What is divided: the weights, or (`keeps`) only what goes with them; by groups of a machine's processes (`is_hybrid`)."""

    is_sharded: bool
    keeps: bool = False
    is_hybrid: bool = False


_KINDS = {
    ("full_shard", "1", "true", "zero3"): _Asked(True),
    ("shard_grad_op", "2", "false", "zero1", "zero2"): _Asked(True, keeps=True),
    ("no_shard", "3", "zero0"): _Asked(False),
    ("hybrid_shard", "4"): _Asked(True, is_hybrid=True),
    ("hybrid_shard_zero2", "_hybrid_shard_zero2", "5"): _Asked(True, keeps=True, is_hybrid=True),
}
"""Of PyTorch's FSDP, by names and numbers; whether weights are divided again after the forward pass; and stages of DeepSpeed."""
_ZERO_STAGE = 2


def set_strategy(draft: Draft, keys: Keys, *, value: Any) -> str:
    """What each device holds, as accelerate, FSDP and DeepSpeed say it; several keys say it together."""
    asked, num = _find_asked(keys), keys.read_int("num_processes")
    if num == 1:
        return f"{NO_EFFECT}one process"
    if asked is None:
        return f"{NO_EFFECT}{SHARDED}"
    is_full = "full" in (draft.get("adapter.kind"), keys["kind"], keys["model_type"])
    origin = "what FSDP or DeepSpeed is asked for"
    if not asked.is_sharded or (asked.keeps and not is_full):
        return draft.set("parallel.strategy", "ddp", origin=origin)
    lines = [draft.set("parallel.strategy", "fsdp", origin=origin)]
    if draft.get("memory.gradient_checkpointing") != "all":
        lines.append(draft.set("memory.gradient_checkpointing", "all", origin="sharded blocks are fetched again for the backward pass"))
    if asked.keeps:
        lines.append(draft.set("parallel.reshard", False, origin=origin))
    machines = keys.read_int("num_machines") or keys.read_int("nnodes") or 1
    if asked.is_hybrid and num is not None and machines > 1 and num > machines and num % machines == 0:
        lines.append(draft.set("parallel.group", num // machines, origin=origin))
    return "; ".join(lines)


def set_offload(draft: Draft, keys: Keys, *, value: Any) -> str:
    """Parts of weights in the memory of the host."""
    asked = _find_asked(keys)
    if str(value).strip().lower() in ("none", "false"):
        return f"{NO_EFFECT}asks for nothing"
    if asked is None or not asked.is_sharded or asked.keeps or keys.read_int("num_processes") == 1:
        return f"{NO_EFFECT}for weights that are sharded over several processes"
    if "full" in (draft.get("adapter.kind"), keys["kind"], keys["model_type"]):
        return f"{NO_EFFECT}weights that learn stay on their device; {STATE}"
    return draft.set("parallel.offload", True, origin="what FSDP or DeepSpeed is asked for")


def _find_asked(keys: Keys) -> _Asked | None:
    """None where neither FSDP nor DeepSpeed is on, or what the latter is to do stands elsewhere."""
    kind = str(_find(keys, "distributed_type") or "").rpartition(".")[2].upper()
    if kind == "FSDP" or _is_on(keys, "use_fsdp", "fsdp_enable"):
        is_second = str(_find(keys, "fsdp_version")) == "2"  # which reads no strategy
        found = [None if is_second else _find(keys, "fsdp_sharding_strategy"), _find(keys, "fsdp_reshard_after_forward"), True]
        text = str(next(one for one in found if one is not None)).strip().lower()
    elif kind == "DEEPSPEED" or _is_on(keys, "use_deepspeed", "deepspeed"):
        stage = _find(keys, "zero_stage")
        if stage is None and _find(keys, "deepspeed_config_file") is not None:
            return None  # the file that says it is not here
        text = f"zero{_ZERO_STAGE if stage is None else stage}"
    else:
        return None
    return next((asked for names, asked in _KINDS.items() if text in names), _Asked(True))


def _find(keys: Keys, name: str) -> Any:
    """A key of the file itself, or of its part that is of FSDP or DeepSpeed."""
    return next((keys[one] for one in (name, f"fsdp_config.{name}", f"deepspeed_config.{name}") if keys[one] is not None), None)


def _is_on(keys: Keys, *names: str) -> bool:
    return any(keys[name] is not None and read_bool(keys[name], name=name) for name in names)


def _set(draft: Draft, keys: Keys, name: str) -> str:
    each, num = keys.read_int("gradient_accumulation_steps") or 1, keys.read_int("num_processes") or 1
    line = draft.set("train.accumulation", each * num, origin=keys.find(name))
    return line if num == 1 else f"{line}: {num} processes x {each}"
