"""The cheapest settings of `[memory]` with which a run fits: what is left out is chosen, what was set stays.

Every combination is estimated; of those that fit the fastest wins, where lost precision counts as lost time. How blocks are run and where
their weights are is one question, how encoders are run another: neither changes what the other needs.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from itertools import product
from math import ceil, log
from typing import Any

import torch

from weber.config.memory import MemoryConfig
from weber.errors import ConfigError
from weber.memory.cards import read_wish
from weber.memory.estimate import Estimate, Phase
from weber.memory.rates import GIB, read_device_bytes

KEPT_FREE, KEPT_FREE_BYTES = 0.05, GIB // 2
"""Of the budget this share is left free, and at least so many bytes: for what allocators lose between tensors, and for the screen."""

PENALTIES: Mapping[str, Mapping[object, float]] = {
    "quantize": {"int8": 1.02, "nf4": 1.15},
    "modulation": {"int8": 1.005},
    "quantize_text_encoder": {"int8": 1.02, "nf4": 1.15},
    "quantize_text_encoder_2": {"int8": 1.02, "nf4": 1.15},
    "vae_tiling": {True: 1.01},
}
"""By how much longer a step might be to be worth the precision that is lost. int4 and int2 are never chosen."""

CARDS_GB = (4, 6, 8, 10, 12, 16, 20, 24, 32, 40, 48, 64, 80, 96, 141, 180)
_STEP = 0.03  # times that differ by less are equal, and then fewer changes win
_HOST_SHARE = 0.85  # of the host's memory: the rest is for the system
_ENCODING = ("encode_batch_size", "vae_tiling", "quantize_text_encoder", "quantize_text_encoder_2")
_GIVEN = frozenset({"fit", "device", "dtype"})
"""Settings that say what there is, and not how it is used."""

_ENCODE_FIRST = "fill the cache on the processor: `weber cache RUN.toml memory.device=cpu memory.dtype=bf16 memory.fit=999GB`"

Settings = dict[str, Any]
Weigh = Callable[[MemoryConfig], Estimate]
Hint = Callable[[MemoryConfig], list[str]]
"""What else makes the network fit, whose settings of memory are the smallest already."""


@dataclass(frozen=True)
class Choices:
    """What can be chosen at all, for this model, adapter and machine; see `MemoryConfig` for what each means."""

    num_blocks: int
    num_text_encoders: int
    precisions: tuple[str, ...]
    quantizes: bool
    places_modulation: bool
    swaps: bool
    leans: bool
    paints: bool
    has_host: bool


@dataclass(frozen=True)
class Fit:
    """What was chosen: `settings` are those that were changed, `reasons` a sentence for each, `memory` all of them together."""

    memory: MemoryConfig
    settings: Settings
    reasons: tuple[str, ...]
    estimate: Estimate
    budget_bytes: int


def read_budget_bytes(fit: str, device: torch.device, *, device_bytes: int | None = None) -> int:
    """Bytes that `memory.fit` means: an amount, a card, or what is there of a GPU, by `device_bytes` of one that is not here.

    Raises ConfigError for `auto` without a GPU, and for what is neither an amount nor a card.
    """
    if fit != "auto":
        return read_wish(fit, key="memory.fit").num_bytes
    if device_bytes is not None:
        return device_bytes
    if device.type == "cuda":
        return read_device_bytes(device)
    raise ConfigError(
        f"How much memory the run may take is not known on {device}, whose memory is everybody's.",
        got='memory.fit = "auto"',
        expected="an amount, or a card",
        fix='set memory.fit = "8GB", or how much there is to spare; `weber plan run.toml --card "RTX 4090"` plans for a card',
    )


def count_usable_bytes(budget_bytes: int) -> int:
    """The budget less what is left free."""
    return budget_bytes - max(int(KEPT_FREE * budget_bytes), KEPT_FREE_BYTES)


def choose_settings(
    memory: MemoryConfig, choices: Choices, *, weigh: Weigh, hint: Hint, budget_bytes: int, host_bytes: int | None
) -> Fit:
    """The cheapest settings with which everything fits.

    Raises ConfigError where nothing does, with the smallest card that would do, and what `hint` says of other settings that close the gap.
    """
    search = _Search(memory, choices, weigh, count_usable_bytes(budget_bytes), host_bytes)
    chosen = search.find()
    if chosen is None:
        raise _refuse(search, hint, budget_bytes)
    names = [name for name in MemoryConfig.model_fields if getattr(chosen, name) != getattr(search.start, name)]
    reasons = tuple(search.explain(chosen, name) for name in names)
    settings = {name: getattr(chosen, name) for name in names}
    return Fit(_build_memory(chosen), settings, reasons, weigh(chosen), budget_bytes)


@dataclass
class _Search:
    """`start`: everything that was left out at its default."""

    memory: MemoryConfig
    choices: Choices
    weigh: Weigh
    usable_bytes: int
    host_bytes: int | None

    @cached_property
    def start(self) -> MemoryConfig:
        return self.memory.model_copy(update={"fit": None})

    def find(self) -> MemoryConfig | None:
        """The cheapest that fits; None where none does."""
        fitting = [one for one in self._list_networks() if self._fits(one, is_network=True)]
        if not fitting:
            return None
        network = min(fitting, key=self._rate)
        encoders = [one for one in self._list_encoders(network) if self._fits(one, is_network=False)]
        return min(encoders, key=self._rate_encoders, default=None)

    def find_smallest(self) -> tuple[MemoryConfig, Estimate]:
        """What needs least, whether it fits or not."""
        networks = [*self._list_networks(swaps_all=True)]
        network = min(networks, key=lambda one: self._weigh(one, is_network=True).num_bytes)
        smallest = min(self._list_encoders(network), key=lambda one: self._weigh(one, is_network=False).num_bytes)
        return smallest, self.weigh(smallest)

    def list_freed(self) -> list[str]:
        """What to leave out of what was set, if that is enough."""
        fixed = sorted(self.memory.model_fields_set - _GIVEN)
        free = MemoryConfig(**{name: getattr(self.memory, name) for name in self.memory.model_fields_set & _GIVEN})
        if not fixed or _Search(free, self.choices, self.weigh, self.usable_bytes, self.host_bytes).find() is None:
            return []
        return [f"leave out {', '.join(f'memory.{name}' for name in fixed)}, which {'was' if len(fixed) == 1 else 'were'} set"]

    def explain(self, chosen: MemoryConfig, name: str) -> str:
        """Why a setting is not at its default: what would be without it."""
        value, default = getattr(chosen, name), getattr(self.start, name)
        without = chosen.model_copy(update={name: default})
        if name == "gradient_checkpointing":
            slower, faster = self.weigh(without).time.seconds, self.weigh(chosen).time.seconds
            return f"{_write(name, value)}: there is room for what it keeps, and a step takes {faster / slower:.0%} of the time"
        peak = max((phase for phase in self.weigh(without).phases), key=lambda phase: phase.num_bytes)
        if peak.num_bytes <= self.usable_bytes:
            slower, faster = self.weigh(without).time.seconds, self.weigh(chosen).time.seconds
            return f"{_write(name, value)}: a step takes {faster / slower:.0%} of the time"
        return f"{_write(name, value)}: with {_write_value(default)}, {peak.name} would take {_write_bytes(peak.num_bytes)}"

    def _list_networks(self, *, swaps_all: bool = False) -> Iterator[MemoryConfig]:
        """Every way to run the network; of the numbers of swapped blocks only the smallest that fits, or all blocks."""
        choices = self.choices
        grid: dict[str, Sequence[object]] = {
            "quantize": choices.precisions if choices.quantizes else (),
            "modulation": ("model", "int8", *(("host",) if choices.has_host else ())) if choices.places_modulation else (),
            "gradient_checkpointing": ("all", *range(2, min(4, choices.num_blocks) + 1), *(("lean",) if choices.leans else ()), "none"),
            "offload_activations": (False, True) if choices.has_host else (),
            "swap_blocks": (0, -1) if choices.swaps else (),
            "vae_tiling": (False, True) if choices.paints else (),
        }
        for one in self._vary(self.start, grid):
            if one.modulation == "int8" and one.quantize in ("int8", "nf4") and "modulation" not in self.memory.model_fields_set:
                continue  # as many bits as it would have anyway, or more
            if one.gradient_checkpointing != "all" and (one.offload_activations or one.swap_blocks):
                continue
            if one.int8_matmul and one.quantize != "int8":
                continue
            if one.compile and one.against_compile is not None:
                continue
            if one.swap_blocks != -1:
                yield one
            elif swaps_all:
                yield one.model_copy(update={"swap_blocks": "all"})
            else:
                yield from self._list_swapped(one)

    def _list_swapped(self, memory: MemoryConfig) -> Iterator[MemoryConfig]:
        """With as few swapped blocks as will do."""
        low, high = 0, self.choices.num_blocks + 1
        while high - low > 1:
            middle = (low + high) // 2
            swapped = self._weigh(memory.model_copy(update={"swap_blocks": middle}), is_network=True)
            if swapped.num_bytes <= self.usable_bytes:
                high = middle
            else:
                low = middle
        if high <= self.choices.num_blocks:
            yield memory.model_copy(update={"swap_blocks": high if high < self.choices.num_blocks else "all"})

    def _list_encoders(self, network: MemoryConfig) -> Iterator[MemoryConfig]:
        precisions = self.choices.precisions
        grid: dict[str, Sequence[object]] = {
            "encode_batch_size": tuple(size for size in (4, 2, 1) if size <= network.encode_batch_size),
            "vae_tiling": (network.vae_tiling, True),
            "quantize_text_encoder": precisions if self.choices.num_text_encoders > 0 else (),
            "quantize_text_encoder_2": precisions if self.choices.num_text_encoders > 1 else (),
        }
        yield from self._vary(network, grid)

    def _vary(self, start: MemoryConfig, grid: Mapping[str, Sequence[object]]) -> Iterator[MemoryConfig]:
        """All combinations of settings that were left out."""
        free = {name: values for name, values in grid.items() if values and name not in self.memory.model_fields_set}
        for values in product(*free.values()):
            yield start.model_copy(update=dict(zip(free, values, strict=True)))

    def _weigh(self, memory: MemoryConfig, *, is_network: bool) -> Phase:
        phases = [one for one in self.weigh(memory).phases if one.has_network == is_network]
        return max(phases, key=lambda phase: phase.num_bytes, default=Phase("nothing", {}))

    def _fits(self, memory: MemoryConfig, *, is_network: bool) -> bool:
        if self._weigh(memory, is_network=is_network).num_bytes > self.usable_bytes:
            return False
        return self.host_bytes is None or self.weigh(memory).host_bytes <= _HOST_SHARE * self.host_bytes

    def _rate(self, memory: MemoryConfig) -> tuple[int, int, float]:
        cost = self.weigh(memory).time.seconds * _count_penalty(memory, set(PENALTIES))
        changes = sum(getattr(memory, name) != getattr(self.start, name) for name in MemoryConfig.model_fields)
        return ceil(log(cost) / _STEP), changes, cost

    def _rate_encoders(self, memory: MemoryConfig) -> tuple[float, int]:
        """Bytes on the device are all that encoding can save, so the least loss wins, and then the largest batch."""
        return _count_penalty(memory, set(_ENCODING)), -memory.encode_batch_size


def _build_memory(chosen: MemoryConfig) -> MemoryConfig:
    """The same, where nothing is left that says how to do what is not done."""
    idle: Settings = {"swap_to": "host"} if chosen.swap_blocks == 0 else {}
    if chosen.quantize == "none" and chosen.modulation != "int8":
        idle |= {"keep_quantized": True}
        if chosen.quantize_text_encoder == chosen.quantize_text_encoder_2 == "none":
            idle |= {"quantize_on": "auto"}
    return MemoryConfig.model_validate(chosen.model_dump() | idle)


def _count_penalty(memory: MemoryConfig, names: set[str]) -> float:
    penalty = 1.0
    for name in names & set(PENALTIES):
        penalty *= PENALTIES[name].get(getattr(memory, name), 1.0)
    return penalty


def _refuse(search: _Search, hint: Hint, budget_bytes: int) -> ConfigError:
    """What lacks, and what closes the gap; a change that helps too little is not said."""
    smallest, estimate = search.find_smallest()
    peak, usable_bytes = estimate.peak, search.usable_bytes
    changed = [
        _write(name, getattr(smallest, name))
        for name in MemoryConfig.model_fields
        if name != "fit" and getattr(smallest, name) != MemoryConfig.model_fields[name].default
    ]
    least = f"at the least, with {', '.join(changed) or 'all defaults'}"
    if peak.num_bytes <= usable_bytes and search.host_bytes is not None:
        return ConfigError(
            "The run fits on the device only with more memory of the host than there is to spare.",
            got=f"{_write_bytes(estimate.host_bytes)} of the host's {_write_bytes(search.host_bytes)} {least}",
            expected=f"{_write_bytes(int(estimate.host_bytes / _HOST_SHARE))} of memory in the host",
            fix=_join(search.list_freed() + hint(smallest)),
        )
    card = next((size for size in CARDS_GB if count_usable_bytes(size * 10**9) >= peak.num_bytes), None)
    lacking = {phase.has_network for phase in estimate.phases if phase.num_bytes > usable_bytes}
    others = hint(smallest) if True in lacking else [_ENCODE_FIRST]
    if lacking == {True, False} and others:
        others = [f"{_ENCODE_FIRST}, and {', or '.join(others)}"]
    return ConfigError(
        f"The run does not fit into {_write_bytes(budget_bytes)}, of which {_write_bytes(budget_bytes - usable_bytes)} stay free,"
        " whatever is chosen.",
        got=f"{peak.name} takes {_write_bytes(peak.num_bytes)} {least}",
        expected="more memory" if card is None or not search.choices.has_host else f"a card of {card} GB",
        fix=_join(search.list_freed() + others),
    )


def _join(closing: Sequence[str]) -> str:
    return "; or ".join(closing) if closing else "choose a smaller model (`weber variants`): no setting closes the gap"


def _write(name: str, value: object) -> str:
    return f"{name} = {_write_value(value)}"


def _write_value(value: object) -> str:
    return str(value).lower() if isinstance(value, bool | int) else f'"{value}"'


def _write_bytes(num_bytes: int) -> str:
    return f"{num_bytes / GIB:.1f} GiB" if num_bytes >= GIB else f"{num_bytes / 2**20:.0f} MiB"
