"""Which of several processes this one is: as torchrun, Kubernetes' PyTorchJob and `weber train` say it, or Slurm."""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass

from weber.errors import ConfigError

_PORT, _NUM_PORTS = 20000, 20000
"""Where processes that Slurm starts meet, unless MASTER_PORT says: a port by the number of the job."""
_RANGE = re.compile(r"([^,\[]+)(?:\[([^\]]+)\])?([^,\[]*)")


@dataclass(frozen=True)
class Place:
    """Process `rank` of `size`; on its machine `local_rank` of `local_size`. They meet at `address`; empty: where the variables say that
    PyTorch itself reads."""

    rank: int
    size: int
    local_rank: int
    local_size: int
    address: str = ""


def find_place(variables: Mapping[str, str]) -> Place | None:
    """From the variables of the environment; None for a process on its own. Raises ConfigError where they make no sense."""
    if {"RANK", "WORLD_SIZE", "MASTER_ADDR", "MASTER_PORT"} <= variables.keys():
        place = _read(variables, "RANK", "WORLD_SIZE", "LOCAL_RANK", "LOCAL_WORLD_SIZE")
        return place if place.size > 1 else None
    if "SLURM_STEP_NODELIST" in variables and int(variables.get("SLURM_STEP_NUM_TASKS", "1")) > 1:
        place = _read(variables, "SLURM_PROCID", "SLURM_STEP_NUM_TASKS", "SLURM_LOCALID", "")
        host = variables.get("MASTER_ADDR") or read_first_host(variables["SLURM_STEP_NODELIST"])
        port = variables.get("MASTER_PORT") or str(_PORT + int(variables.get("SLURM_JOB_ID", "0")) % _NUM_PORTS)
        per_node = re.split(r"[(,]", variables.get("SLURM_STEP_TASKS_PER_NODE", "1"))[0]
        return Place(place.rank, place.size, place.local_rank, int(per_node), f"tcp://{host}:{port}")
    return None


def read_first_host(nodes: str) -> str:
    """The first of a list of Slurm: `gpu[03-07,9],cpu1` is `gpu03`."""
    found = _RANGE.match(nodes)
    if found is None:
        return nodes
    first = re.split(r"[-,]", found[2])[0] if found[2] else ""
    return f"{found[1]}{first}{found[3]}"


def _read(variables: Mapping[str, str], rank: str, size: str, local_rank: str, local_size: str) -> Place:
    given = {name: variables[name] for name in (rank, size, local_rank, local_size) if name in variables}
    wrong = [f"{name} = {text}" for name, text in given.items() if not text.isdecimal()]
    if wrong or int(given[rank]) >= int(given[size]):
        raise ConfigError(
            "What the environment says of several processes makes no sense.",
            got=", ".join(wrong) or f"{rank} = {given[rank]}, {size} = {given[size]}",
            expected=f"{size} processes, numbered from 0",
            fix=f"start them with torchrun, srun or `weber launch`; unset {rank} to train in one process",
        )
    return Place(int(given[rank]), int(given[size]), int(given.get(local_rank, "0")), int(given.get(local_size, "1")))
