"""What several processes have between them, as the tensors of one: read from each when they are written, one at a time."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from functools import partial
from typing import Any

import torch
from torch import Tensor

from weber.families.tensors import DTYPES, Entry, Weights, build_entry
from weber.optim.states import list_states
from weber.training.learner import Learner

WEIGHTS, STATES, MEANS = "weights", "states", "means"
Own = Mapping[str, Mapping[str, Tensor]]
"""Tensors by their kind and name."""


@dataclass(frozen=True)
class Gathered:
    """What is trained, the state of its optimizer and its running mean, of all processes."""

    weights: Weights
    states: Weights
    means: Weights


def list_own(learner: Learner) -> Own:
    """What this process moves, under the names of a checkpoint's files."""
    weights = {name: parameter.detach() for name, parameter in learner.parameters}
    means = {} if learner.ema is None else learner.ema.list_tensors()
    return {WEIGHTS: weights, STATES: list_states(learner.optimizer, learner.parameters), MEANS: means}


def describe_own(own: Own) -> dict[str, Any]:
    """The same without their numbers, to be told."""
    names = {dtype: name for name, dtype in DTYPES.items()}
    return {kind: [(name, tuple(one.shape), names[one.dtype]) for name, one in found.items()] for kind, found in own.items()}


def gather(learner: Learner) -> Gathered | None:
    """Of a run in which each process moves a part; None where this one has it all. Called by process 0 alone."""
    crew = learner.crew
    if crew is None or not crew.owners:
        return None
    own = list_own(learner)
    with crew.world.leading("list"):
        told = crew.world.tell_all(describe_own(own))
    found = {kind: _merge(learner, kind, own, told) for kind in (WEIGHTS, STATES, MEANS)}
    return Gathered(found[WEIGHTS], found[STATES], found[MEANS])


def _merge(learner: Learner, kind: str, own: Own, told: list[Mapping[str, Any]]) -> Weights:
    """In the order in which one process would have them: that of the parameters."""
    crew, entries = learner.crew, dict[str, Entry]()
    assert crew is not None
    rows: dict[str, list[tuple[str, list[int], str]]] = {}
    for rank, one in enumerate(told):
        for name, shape, dtype in one[kind]:
            parameter = name.partition("/")[0]
            if crew.owners.get(parameter, 0) == rank:
                rows.setdefault(parameter, []).append((name, shape, dtype))
    for parameter, _ in crew.parameters:
        owner = crew.owners.get(parameter, 0)
        for name, shape, dtype in rows.get(parameter, []):
            if owner == 0:
                entries[name] = build_entry(own[kind][name])
            else:
                read = partial(_fetch, learner, kind, name, rank=owner, shape=tuple(shape), dtype=DTYPES[dtype])
                entries[name] = Entry(tuple(shape), DTYPES[dtype], read)
    return entries


def _fetch(learner: Learner, kind: str, name: str, *, rank: int, shape: tuple[int, ...], dtype: torch.dtype) -> Tensor:
    crew = learner.crew
    assert crew is not None
    found = torch.empty(shape, dtype=dtype)
    with crew.world.leading("send", kind=kind, name=name, rank=rank):
        crew.world.receive(found.view(-1).view(torch.uint8), rank=rank)
    return found
