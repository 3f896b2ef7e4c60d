"""The optimizers as rows."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from math import ceil, prod
from typing import Any, Protocol

import torch

from weber.config.optim import OptimConfig
from weber.config.optimizers import FACTS, TAIL
from weber.errors import ConfigError
from weber.optim.codecs import BF16, BLOCKS_8BIT, FP32
from weber.optim.libraries import Groups, build_adopted, build_arguments, load_class
from weber.optim.measure import measure_state_bytes
from weber.optim.methods import Elementwise, Factored, Method
from weber.optim.muon import build_muon
from weber.optim.rules import write_adamw, write_lion
from weber.optim.stepper import Stepper

Parameters = Sequence[torch.nn.Parameter]
Options = Mapping[str, object]

_ADAMW = {"exp_avg": True, "exp_avg_sq": False}
_LION = {"exp_avg": True}
_FP32_ONLY = (torch.float32,)
_FP32_AND_BF16 = (torch.float32, torch.bfloat16)
_NO_OPTIONS: Options = {}
_BLOCK_LIMIT = 4096
"""Tensors with fewer numbers are not kept in blocks by bitsandbytes and torchao, as in our own codec."""


class OptimizerRow(Protocol):
    """An optimizer: what it is, what it holds, and in which dtypes parameters may be."""

    @property
    def summary(self) -> str:
        """In words."""

    @property
    def dtypes(self) -> tuple[torch.dtype, ...]:
        """Of parameters."""

    @property
    def precision(self) -> str:
        """Of the state."""

    def state_bytes(self, shape: Sequence[int], dtype: torch.dtype = torch.float32, *, options: Options = _NO_OPTIONS) -> int:
        """Bytes of the state of a parameter."""

    def is_fused(self, config: OptimConfig) -> bool:
        """Whether few kernels move all parameters."""

    def check(self, config: OptimConfig) -> None:
        """Raise ConfigError or MissingExtraError for what it cannot do."""

    def build(self, groups: Groups, config: OptimConfig, *, seed: int) -> torch.optim.Optimizer:
        """The optimizer, for groups of parameters with a `rate` each."""


@dataclass(frozen=True)
class OwnRow:
    """An optimizer of our own, which updates one parameter at a time.

    `build_whole`: the library's own, which is faster, for parameters that move together and whose state is beside them.
    """

    summary: str
    method: Method
    dtypes: tuple[torch.dtype, ...] = _FP32_AND_BF16
    build_whole: Callable[[Groups, OptimConfig], torch.optim.Optimizer] | None = None

    @property
    def precision(self) -> str:
        """Of the state."""
        return self.method.precision

    def state_bytes(self, shape: Sequence[int], dtype: torch.dtype = torch.float32, *, options: Options = _NO_OPTIONS) -> int:
        """Bytes of the state of a parameter, the number of its step included."""
        return 4 + sum(prod(size) * kept.itemsize for size, kept in self.method.list_state(shape).values())

    def is_fused(self, config: OptimConfig) -> bool:
        """See `OptimizerRow`."""
        return self.build_whole is not None and not config.fused_backward and config.state_on == "device"

    def check(self, config: OptimConfig) -> None:
        """See `OptimizerRow`."""

    def build(self, groups: Groups, config: OptimConfig, *, seed: int) -> torch.optim.Optimizer:
        """See `OptimizerRow`."""
        if self.build_whole is not None and self.is_fused(config):
            return self.build_whole(groups, config)
        return Stepper(groups, self.method, config=config, seed=seed)


@dataclass(frozen=True)
class Held:
    """State of a library's optimizer: tensors like the parameter, in its precision; of `bits` where they are kept in blocks.

    `small`: bytes beside them for each parameter, such as the number of its step; `maps`: of what codes in blocks mean. `kahan`: another
    one like it where it is bf16.
    """

    like: float = 2.0
    bits: int | None = None
    block: int = 256
    small: int = 0
    maps: int = 0
    kahan: bool = False

    def count_bits(self, shape: Sequence[int], dtype: torch.dtype) -> int:
        """Of each number of the state."""
        return self.bits if self.bits is not None and prod(shape) >= _BLOCK_LIMIT else 8 * dtype.itemsize

    def count_bytes(self, shape: Sequence[int], dtype: torch.dtype) -> int:
        """Of one parameter."""
        num = prod(shape)
        if self.bits is not None and num >= _BLOCK_LIMIT:
            return ceil(self.like * (num * self.bits / 8 + 4 * ceil(num / self.block))) + self.small + self.maps
        extra = self.kahan and dtype == torch.bfloat16
        return ceil((self.like + extra) * num * dtype.itemsize) + self.small


@dataclass(frozen=True)
class LibraryRow:
    """An optimizer of a library: `source` is `module:Class`; `fixed` is what its constructor is given beside the settings."""

    summary: str
    name: str
    source: str
    held: Held
    dtypes: tuple[torch.dtype, ...] = _FP32_ONLY
    fixed: Mapping[str, Any] = field(default_factory=dict)

    @property
    def precision(self) -> str:
        """Of the state."""
        return "as the weights" if self.held.bits is None else f"{self.held.bits} bit"

    def state_bytes(self, shape: Sequence[int], dtype: torch.dtype = torch.float32, *, options: Options = _NO_OPTIONS) -> int:
        """Bytes of the state of a parameter."""
        num_bytes = self.held.count_bytes(shape, dtype)
        if not options or FACTS[self.name].needs_gpu:  # options of those that need one change nothing of what is kept
            return num_bytes
        plain, given = (
            measure_state_bytes(self.source, self.name, shape=shape, options=dict(self.fixed) | dict(one)) for one in ({}, options)
        )
        return num_bytes + ceil((given - plain) * self.held.count_bits(shape, dtype) / 32)

    def is_fused(self, config: OptimConfig) -> bool:
        """See `OptimizerRow`: as if never, since libraries differ."""
        return False

    def check(self, config: OptimConfig) -> None:
        """See `OptimizerRow`: whether the library is here, and what its class takes."""
        probe, lr = torch.nn.Parameter(torch.zeros(2, 2)), config.choose_lr("lora")
        self.build([{"params": [probe], "lr": lr, "rate": 1.0}], config.model_copy(update={"lr": lr}), seed=0)

    def build(self, groups: Groups, config: OptimConfig, *, seed: int) -> torch.optim.Optimizer:
        """See `OptimizerRow`."""
        made = load_class(self.source, self.name)
        arguments = dict(self.fixed) | build_arguments(made, config)
        return build_adopted(made, groups, arguments=arguments, seed=seed, name=self.name)


class TailRow(LibraryRow):
    """One of the long tail; what it holds is measured on small parameters."""

    def state_bytes(self, shape: Sequence[int], dtype: torch.dtype = torch.float32, *, options: Options = _NO_OPTIONS) -> int:
        """Bytes of the state of a parameter, from those of small ones."""
        return measure_state_bytes(self.source, self.name, shape=shape, options=options)


class MuonRow(LibraryRow):
    """Two of a library's optimizers: one for matrices, one for everything else."""

    def state_bytes(self, shape: Sequence[int], dtype: torch.dtype = torch.float32, *, options: Options = _NO_OPTIONS) -> int:
        """Bytes of the state of a parameter: one moment of matrices, two and the step of the rest."""
        num_bytes = prod(shape) * dtype.itemsize
        return num_bytes if len(shape) == 2 else 2 * num_bytes + 4

    def build(self, groups: Groups, config: OptimConfig, *, seed: int) -> torch.optim.Optimizer:
        """See `OptimizerRow`."""
        return build_muon(load_class(self.source, self.name), groups, config=config, seed=seed)


def _build_adamw(groups: Groups, config: OptimConfig) -> torch.optim.Optimizer:
    fused = all(parameter.device.type in ("cuda", "cpu", "mps") for group in groups for parameter in group["params"])
    beta1, beta2 = config.decays or (0.9, 0.999)
    eps, weight_decay = config.chosen_eps or 0.0, config.chosen_weight_decay or 0.0
    return torch.optim.AdamW(groups, betas=(beta1, beta2), eps=eps, weight_decay=weight_decay, fused=fused)


_MEANS = Held(2.0)
_ONE = Held(1.0)
_STEP = 4


def _optimi(name: str, title: str, held: Held, summary: str) -> LibraryRow:
    return LibraryRow(f"{summary}; bf16 weights by Kahan's sums", name, f"optimi:{title}", held, _FP32_AND_BF16, {"kahan_sum": None})


def _list_bitsandbytes() -> Iterable[LibraryRow]:
    kinds = {"adagrad": ("Adagrad", 1), "adam": ("Adam", 2), "adamw": ("AdamW", 2), "ademamix": ("AdEMAMix", 3)}
    kinds |= {"lion": ("Lion", 1), "rmsprop": ("RMSprop", 1), "sgd": ("SGD", 1)}
    for word, (title, num) in kinds.items():
        for bits in (32, 8):
            ends = ("", "32bit") if bits == 32 else ("_8bit", "8bit")
            kept = Held(num, small=8) if bits == 32 else Held(num, bits=8, small=8, maps=1024 * min(num, 2))
            said = f"{title}, state in {bits} bits"
            fixed = {"momentum": 0.9} if word == "sgd" else {}
            yield LibraryRow(said, f"bnb_{word}{ends[0]}", f"bitsandbytes.optim:{title}{ends[1]}", kept, fixed=fixed)
            if f"bnb_paged_{word}{ends[0]}" in FACTS:
                source = f"bitsandbytes.optim:Paged{title}{ends[1]}"
                yield LibraryRow(f"{said}, which moves to the host where a GPU is full", f"bnb_paged_{word}{ends[0]}", source, kept)


def _list_torchao() -> Iterable[LibraryRow]:
    for bits, title, block, maps in ((4, "4bit", 128, 128), (8, "8bit", 256, 2048), (8, "Fp8", 256, 0)):
        for kind in ("Adam", "AdamW"):
            end = title.lower()
            name = f"torchao_{kind.lower()}_{end}"
            summary = f"{kind}, state in {'fp8' if title == 'Fp8' else f'{bits} bits'}; bf16 weights are rounded stochastically"
            held = Held(2.0, bits=bits, block=block, small=_STEP, maps=maps)
            yield LibraryRow(summary, name, f"torchao.optim:{kind}{title}", held, _FP32_AND_BF16, {"bf16_stochastic_round": True})


def _list_torch() -> Iterable[LibraryRow]:
    step = Held(2.0, small=_STEP)
    rows = {"Adadelta": step, "Adagrad": Held(1.0, small=_STEP), "Adam": step, "Adamax": step, "ASGD": Held(1.0, small=12)}
    rows |= {"NAdam": Held(2.0, small=8), "RAdam": step, "RMSprop": Held(1.0, small=_STEP), "SGD": Held(0.0)}
    for title, held in rows.items():
        yield LibraryRow(f"{title} of torch", f"torch_{title.lower()}", f"torch.optim:{title}", held)


_LIBRARIES = [
    MuonRow("Muon on matrices, AdamW on the rest", "muon", "torch.optim:Muon", _ONE),
    LibraryRow("Prodigy: finds the rate itself", "prodigy", "prodigyopt:Prodigy", Held(4.0, small=8)),
    LibraryRow("schedule-free AdamW", "adamw_schedulefree", "schedulefree:AdamWScheduleFree", _MEANS),
    LibraryRow("schedule-free RAdam", "radam_schedulefree", "schedulefree:RAdamScheduleFree", _MEANS),
    LibraryRow("schedule-free SGD", "sgd_schedulefree", "schedulefree:SGDScheduleFree", _ONE),
    _optimi("optimi_adam", "Adam", Held(2.0, kahan=True), "Adam"),
    _optimi("optimi_adamw", "AdamW", Held(2.0, kahan=True), "AdamW"),
    _optimi("optimi_adan", "Adan", Held(4.0, kahan=True), "Adan"),
    _optimi("optimi_lion", "Lion", Held(1.0, kahan=True), "Lion"),
    _optimi("optimi_radam", "RAdam", Held(2.0, kahan=True), "RAdam"),
    _optimi("optimi_ranger", "Ranger", Held(3.0, kahan=True), "Ranger: RAdam with lookahead"),
    _optimi("optimi_sgd", "SGD", Held(0.0, kahan=True), "SGD"),
    _optimi("optimi_stableadamw", "StableAdamW", Held(2.0, small=_STEP, kahan=True), "AdamW with bounded updates"),
    *_list_bitsandbytes(),
    *_list_torchao(),
    *_list_torch(),
]

_ROWS: dict[str, OptimizerRow] = {
    "adamw": OwnRow(
        "AdamW, fp32 state, fused kernel where the device has one", Elementwise(write_adamw, _ADAMW, FP32), _FP32_ONLY, _build_adamw
    ),
    "adamw_bf16": OwnRow("AdamW, bf16 state with stochastic rounding", Elementwise(write_adamw, _ADAMW, BF16)),
    "adamw_8bit": OwnRow("AdamW, state in 8 bits", Elementwise(write_adamw, _ADAMW, BLOCKS_8BIT)),
    "adafactor": OwnRow("Adafactor, a row and a column of the second moment", Factored()),
    "lion": OwnRow("Lion, one fp32 moment", Elementwise(write_lion, _LION, FP32)),
    "lion_8bit": OwnRow("Lion, one moment in 8 bits", Elementwise(write_lion, _LION, BLOCKS_8BIT)),
    **{row.name: row for row in _LIBRARIES},
    **{
        name: TailRow(f"{name.removeprefix(TAIL)} of pytorch_optimizer", name, f"pytorch_optimizer:{name.removeprefix(TAIL)}", _MEANS)
        for name in FACTS
        if name.startswith(TAIL)
    },
}

OPTIMIZERS = {name: _ROWS[name] for name in FACTS}


def count_state_bytes(config: OptimConfig, shapes: Iterable[Sequence[int]], *, dtype: torch.dtype) -> int:
    """Bytes of the state of all parameters."""
    row = OPTIMIZERS[config.name]
    return sum(row.state_bytes(shape, dtype, options=config.options) for shape in shapes)


def check_optimizer(config: OptimConfig, dtypes: Iterable[torch.dtype], *, rates: Iterable[float] = ()) -> None:
    """Refuse what the optimizer cannot do: parameters of these dtypes, rates of their own, options, or being here at all.

    Raises ConfigError or MissingExtraError.
    """
    row = OPTIMIZERS[config.name]
    refused = [_name_dtype(dtype) for dtype in dtypes if dtype not in row.dtypes]
    if refused:
        raise ConfigError(
            f'optim.name = "{config.name}" cannot train weights in {refused[0]}: its updates are smaller than half the distance between'
            " two such numbers, and rounding to the nearest would lose them.",
            got=f"weights in {refused[0]}",
            expected=f"weights in {' or '.join(map(_name_dtype, row.dtypes))}",
            fix='set optim.name = "adamw_bf16" or "adamw_8bit", which round stochastically, or adapter.precision = "fp32"',
        )
    different = sorted(set(rates))
    if len(different) > 1 and not config.facts.has_rates:
        raise ConfigError(
            f'optim.name = "{config.name}" finds one rate for all parameters, so that some cannot have another one.',
            got=f"{len(different)} learning rates",
            fix='remove lr from adapter.rules and optim.text_encoder_lr, or set optim.name = "adamw"',
        )
    row.check(config)


def build_optimizer(
    parameters: Parameters, config: OptimConfig, *, seed: int, rates: Sequence[float] | None = None
) -> torch.optim.Optimizer:
    """The optimizer that `optim.name` names, at the rate `optim.lr`. `rates` multiply the rate of each parameter; None: all are 1.

    Raises ConfigError or MissingExtraError for what it cannot do.
    """
    assert config.lr is not None, "the resolved config has a learning rate"
    rates = [1.0] * len(parameters) if rates is None else rates
    check_optimizer(config, {parameter.dtype for parameter in parameters}, rates=rates)
    groups: dict[float, dict[str, Any]] = {}
    for parameter, rate in zip(parameters, rates, strict=True):
        groups.setdefault(rate, {"params": [], "lr": config.lr * rate, "rate": rate})["params"].append(parameter)
    return OPTIMIZERS[config.name].build(list(groups.values()), config, seed=seed)


def _name_dtype(dtype: torch.dtype) -> str:
    return {torch.float32: "fp32", torch.bfloat16: "bf16", torch.float16: "fp16"}.get(dtype, str(dtype).removeprefix("torch."))
