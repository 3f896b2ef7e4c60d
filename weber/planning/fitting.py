"""A run with settings of memory that fit, and what else would make it fit: only changes that close the gap."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from functools import partial
from math import sqrt
from typing import Any

from weber.config.memory import MemoryConfig
from weber.config.run import RunConfig
from weber.kinds.table import KINDS
from weber.memory.fit import Fit, choose_settings, count_usable_bytes, read_budget_bytes
from weber.planning.budget import Budget, Workload
from weber.planning.checks import sample_size
from weber.planning.rehearsal import Sample

_EDGES = (768, 512, 384, 256)
_RANK = 4


@dataclass(frozen=True)
class _Change:
    """Settings outside of `[memory]`, in words and as they are."""

    text: str
    config: RunConfig
    workload: Workload


def build_fitted(config: RunConfig, workload: Workload) -> tuple[RunConfig, Fit | None]:
    """The run with settings of memory that fit into `memory.fit`, and what was chosen; as it is where that is left out.

    Only settings that were left out are chosen. Raises ConfigError where nothing fits, with what would do.
    """
    memory = config.memory
    if memory.fit is None:
        return config, None
    budget = Budget(config, workload)
    budget_bytes = read_budget_bytes(memory.fit, workload.device, device_bytes=workload.device_bytes)
    fit = choose_settings(
        memory,
        budget.build_choices(),
        weigh=partial(budget.build_estimate, is_rough=True),
        hint=partial(_list_closing, config, workload, count_usable_bytes(budget_bytes)),
        budget_bytes=budget_bytes,
        host_bytes=workload.host_bytes,
    )
    return config.model_copy(update={"memory": fit.memory}), replace(fit, estimate=budget.build_estimate(fit.memory))


def _list_closing(config: RunConfig, workload: Workload, usable_bytes: int, smallest: MemoryConfig) -> list[str]:
    """Changes of which each makes the network fit with the smallest settings of memory; where none does alone, all of them together."""
    others = (*_list_optimizers(config, workload), _lower_batch(config, workload), _lower_rank(config, workload))
    closing = [one.text for one in others if one is not None and _fits(one, usable_bytes, smallest)]
    sizes = (one.text for one in _list_resolutions(config, workload) if _fits(one, usable_bytes, smallest))
    closing += [text for text in (next(sizes, None),) if text is not None]
    if closing:
        return [f"set {text}" for text in closing]
    together = _join(config, workload)
    return [f"set {together.text} together"] if together is not None and _fits(together, usable_bytes, smallest) else []


def _fits(change: _Change, usable_bytes: int, smallest: MemoryConfig) -> bool:
    budget, memory = Budget(change.config, change.workload), smallest
    may_swap = "swap_blocks" not in change.config.memory.model_fields_set and smallest.gradient_checkpointing == "all"
    if may_swap and budget.build_choices().swaps:
        memory = smallest.model_copy(update={"swap_blocks": "all"})
    estimate, host_bytes = budget.build_estimate(memory, is_rough=True), change.workload.host_bytes
    network_bytes = max(phase.num_bytes for phase in estimate.phases if phase.has_network)
    return network_bytes <= usable_bytes and (host_bytes is None or estimate.host_bytes <= host_bytes)


def _join(config: RunConfig, workload: Workload) -> _Change | None:
    """The least of everything."""
    texts: list[str] = []
    for lower in (_lower_optimizer, _lower_batch, _lower_resolution, _lower_rank):
        change = lower(config, workload)
        if change is not None:
            texts.append(change.text)
            config, workload = change.config, change.workload
    return _Change(", ".join(texts), config, workload) if len(texts) > 1 else None


def _list_optimizers(config: RunConfig, workload: Workload) -> Iterator[_Change]:
    optim, is_own, is_gpu = config.optim, config.optim.facts.is_own, workload.device.type == "cuda"
    changes: list[tuple[str, dict[str, Any]]] = [
        ("optim.fused_backward = true", {"fused_backward": True, "clip_norm": "off"}),
        ('optim.state_on = "host"', {"state_on": "host"}),
        ('optim.name = "adamw_8bit"', {"name": "adamw_8bit"}),
        ('optim.name = "adafactor"', {"name": "adafactor"}),
        ('optim.name = "adafactor" with optim.fused_backward = true', {"name": "adafactor", "fused_backward": True, "clip_norm": "off"}),
    ]
    for text, change in changes:
        if "name" not in change and not (is_own and (is_gpu or "state_on" not in change)):
            continue
        if change.get("fused_backward") and (config.train.accumulation > 1 or config.memory.compile):
            continue
        if any(getattr(optim, name) != value for name, value in change.items() if name != "clip_norm"):
            yield _Change(text, config.model_copy(update={"optim": optim.model_copy(update=change)}), workload)


def _lower_optimizer(config: RunConfig, workload: Workload) -> _Change | None:
    return next(reversed(list(_list_optimizers(config, workload))), None)


def _lower_batch(config: RunConfig, workload: Workload) -> _Change | None:
    """The same step in more, smaller passes."""
    batch, accumulation = config.train.batch_size, config.train.accumulation
    if batch == 1 or config.optim.fused_backward:
        return None
    train = config.train.model_copy(update={"batch_size": 1, "accumulation": batch * accumulation})
    samples = {replace(sample, batch=1): number for sample, number in workload.samples.items()}
    text = f"train.batch_size = 1 with train.accumulation = {batch * accumulation}"
    return _Change(text, config.model_copy(update={"train": train}), replace(workload, samples=samples))


def _list_resolutions(config: RunConfig, workload: Workload) -> Iterator[_Change]:
    """Falling: the first that fits is the largest."""
    largest = max(sample.width * sample.height for sample in workload.samples)
    for edge in _EDGES:
        if edge**2 < largest:
            yield _set_resolution(config, workload, edge)


def _lower_resolution(config: RunConfig, workload: Workload) -> _Change | None:
    return next(reversed(list(_list_resolutions(config, workload))), None)


def _set_resolution(config: RunConfig, workload: Workload, edge: int) -> _Change:
    def shrink(width: int, height: int) -> tuple[int, int]:
        factor, step = min(1.0, edge / sqrt(width * height)), workload.family.alignment_pixels
        return max(step, round(factor * width / step) * step), max(step, round(factor * height / step) * step)

    def shrink_sample(sample: Sample) -> Sample:
        width, height = shrink(sample.width, sample.height)
        return replace(sample, width=width, height=height, references=tuple(shrink(*size) for size in sample.references))

    samples: dict[Sample, int] = {}
    for sample, number in workload.samples.items():
        smaller = shrink_sample(sample)
        samples[smaller] = samples.get(smaller, 0) + number
    is_set = config.sampling.width is not None or config.sampling.height is not None or bool(config.sampling.sizes)
    usual = sample_size(config, workload.family.alignment_pixels)
    paintings: Sequence[Sample] = [
        one if is_set or (one.height, one.width) != usual else shrink_sample(one) for one in workload.paintings
    ]
    where = "data.0.resolution" if len(config.data) == 1 else "the resolution of every set"
    listed = ' with aspect = "bucket"' if any(one.aspect == "listed" for one in config.data) else ""
    listed += " and without buckets" if any(one.buckets for one in config.data) else ""
    return _Change(f"{where} = {edge}{listed}", config, replace(workload, samples=samples, paintings=paintings))


def _lower_rank(config: RunConfig, workload: Workload) -> _Change | None:
    if config.adapter.kind != "lora" or config.adapter.rank <= _RANK:
        return None
    lower = config.model_copy(update={"adapter": config.adapter.model_copy(update={"rank": _RANK})})
    family = workload.family
    trained = KINDS[lower.adapter.kind].choose(lower, family, skeleton=family.skeleton, dtype=workload.dtype)
    return _Change(f"adapter.rank = {_RANK}", lower, replace(workload, trained=trained))
