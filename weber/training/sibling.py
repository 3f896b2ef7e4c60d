"""The model that paints in the place of the one that is trained on: read for each sheet, given what was learned, and freed."""

from __future__ import annotations

import gc
from collections.abc import Iterator, Sequence
from contextlib import contextmanager

import torch
from torch import nn

from weber.families.family import Family, Predictor
from weber.optim.states import Named
from weber.planning.plan import Plan
from weber.progress import Progress
from weber.training.network import Where, build_put, load_network


@contextmanager
def open_painting(plan: Plan, predictor: Predictor, *, learned: Named, progress: Progress) -> Iterator[Predictor]:
    """What paints: the network that is trained, or that of another model with the numbers that are in `learned` now."""
    if plan.sibling is None:
        yield predictor
        return
    with _open_sibling(plan, plan.sibling, learned=learned, progress=progress) as other:
        yield other


@contextmanager
def _open_sibling(plan: Plan, sibling: Family, *, learned: Named, progress: Progress) -> Iterator[Predictor]:
    parameters: list[tuple[str, nn.Parameter]] = []
    base = sibling.open_transformer()

    def put(transformer: nn.Module) -> None:
        parameters.extend(plan.kind.build(transformer, plan.resolved, trained=plan.trained, base=base, start=None))

    with _undisturbed(plan.device):
        network = load_network(
            sibling,
            plan.resolved.memory.model_copy(update={"keep_quantized": False}),
            where=Where(plan.device, plan.dtype, plan.resolved.output.cache),
            trained=plan.trained.shapes,
            put=build_put(put, plan.frozen),
            progress=progress,
        )
    _copy(parameters, learned)
    try:
        yield network.predictor
    finally:
        if network.swap is not None:
            network.swap.close()
        parameters.clear()
        del network
        gc.collect()
        if plan.device.type == "cuda":
            torch.cuda.empty_cache()


@contextmanager
def _undisturbed(device: torch.device) -> Iterator[None]:
    """Dropout of the run draws from PyTorch's own state, which a library that fills new layers would move."""
    with torch.random.fork_rng(devices=[device] if device.type == "cuda" else []):
        yield


@torch.no_grad()
def _copy(parameters: Sequence[tuple[str, nn.Parameter]], learned: Named) -> None:
    numbers = dict(learned)
    for name, parameter in parameters:
        parameter.copy_(numbers[name])
