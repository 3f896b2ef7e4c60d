"""Optimizers of libraries behind one face: imported when they are used, exact on resume, checked against what they take."""

from __future__ import annotations

import inspect
import io
import json
import logging
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager, redirect_stdout
from importlib.util import find_spec
from types import ModuleType
from typing import Any

import torch
from torch import Tensor, nn

from weber.config.near import find_near
from weber.config.optim import OptimConfig
from weber.data.seeds import build_seed
from weber.errors import ConfigError, MissingExtraError
from weber.imports import load_module

Groups = list[dict[str, Any]]

_PACKAGES = {
    "bitsandbytes": "bitsandbytes",
    "optimi": "'weber[optimizers]'",
    "prodigyopt": "'weber[optimizers]'",
    "pytorch_optimizer": "'weber[optimizers]'",
    "schedulefree": "'weber[optimizers]'",
    "torchao": "'weber[torchao]'",
}
"""What pip has to install for each module."""

_OURS = {"params", "param_groups", "lr", "betas", "eps", "weight_decay"}
_HELD_BACK = {
    "warmup_steps": "set optim.warmup_steps",
    "max_lr": "remove it: weber knows the largest rate",
    "optim_bits": "choose the name with or without 8bit",
    "is_paged": "choose the name with or without paged",
    "bf16_stochastic_round": "remove it: weights in bf16 are always rounded so",
    "kahan_sum": "remove it: weights in bf16 always have it",
    **dict.fromkeys(
        ("foreach", "fused", "triton", "capturable", "differentiable", "maximize", "gradient_release", "fsdp_in_use", "args", "use_gc"),
        "remove it: weber decides how the optimizer is run",
    ),
}
"""Arguments of constructors that are not options, and what to do instead."""

_IDLE = {
    "bitsandbytes": {"amsgrad", "centered", "dampening", "initial_accumulator_value", "lr_decay", "min_8bit_size", "nesterov"},
    "torchao": {"amsgrad"},
    "RMSprop32bit": {"momentum"},
    "RMSprop8bit": {"momentum"},
}
"""Arguments that have no effect or fail, by library or class (bitsandbytes 0.50, torchao 0.18; read in their sources)."""


_SEEDED: dict[str, Callable[[int], object]] = {
    "cpu": torch.default_generator.manual_seed,
    "cuda": torch.cuda.manual_seed_all,
    "mps": torch.mps.manual_seed,
}


def _seed_generators(devices: Iterable[torch.device], seed: int) -> None:
    """Seed the global generators of the host and of these devices.

    `torch.manual_seed` does this for every kind of device that PyTorch knows, and for each that is not there formats the call stack: half a
    millisecond, as long as a small network's update.
    """
    for kind in {"cpu", *(device.type for device in devices)}:
        write: Callable[[int], object] = _SEEDED.get(kind, torch.manual_seed)
        write(seed)


class Adopted(torch.optim.Optimizer):
    """Optimizers of libraries as one, each with its own groups of parameters.

    What they draw in a step depends on the seed and the number of the step alone, so that a resumed run continues bit for bit, and the
    generators of the process stay as they were.
    """

    def __init__(self, inner: Sequence[torch.optim.Optimizer], *, seed: int) -> None:
        defaults: dict[str, Any] = {}
        for one in inner:
            defaults |= one.defaults
        super().__init__([group for one in inner for group in one.param_groups], defaults)
        for group in self.param_groups:
            if "triton" in group and all(one.device.type == "cpu" for one in group["params"]):
                group["triton"] = False  # optimi runs its Triton kernels wherever Triton is installed, and they need a GPU
        self.inner, self.seed, self.num_steps = tuple(inner), seed, 0
        self.state = inner[0].state
        for one in inner[1:]:
            one.state = self.state

    @torch.no_grad()
    def step(self, closure: Callable[[], float] | None = None) -> None:  # type: ignore[override]
        """One update of every parameter that has a gradient."""
        assert closure is None, "weber computes the loss before the step"
        devices = {parameter.device for group in self.param_groups for parameter in group["params"]}
        self.num_steps += 1
        with torch.random.fork_rng([device for device in devices if device.type == "cuda"]), _run_plainly(devices):
            _seed_generators(devices, build_seed(self.seed, self.num_steps, "optimizer"))
            for one in self.inner:
                one.step()

    def zero_grad(self, set_to_none: bool = True) -> None:
        """See `torch.optim.Optimizer`."""
        for group in self.param_groups:
            for parameter in group["params"]:
                parameter.grad = None

    @property
    def has_modes(self) -> bool:
        """Whether it trains with other numbers than those that it ends with."""
        return any(hasattr(one, "eval") and hasattr(one, "train") for one in self.inner)

    def write_mode(self, *, is_training: bool) -> None:
        """Put the other numbers in place, as schedule-free optimizers want it."""
        for one in self.inner:
            switch = getattr(one, "train" if is_training else "eval", None)
            if switch is not None:
                switch()

    def load_tensor(self, parameter: nn.Parameter, state: str, *, tensor: Tensor) -> Tensor:
        """A copy of a tensor of the state of a parameter where the library wants it: on its device, or in memory that is paged.

        A copy, because what is read from a file may begin anywhere, and some sums on CPUs depend on where memory begins.
        """
        pages = getattr(self.inner[0], "get_state_buffer", None)
        if pages is None or state not in ("state1", "state2"):
            return tensor.to(parameter.device, copy=True)
        buffer: Tensor = pages(parameter, dtype=tensor.dtype)
        if buffer.shape != tensor.shape:
            return tensor.to(parameter.device, copy=True)
        return buffer.copy_(tensor)


@contextmanager
def evaluated(optimizer: torch.optim.Optimizer) -> Iterator[None]:
    """Inside, the parameters are what the optimizer would end with; afterwards those that it trains with again, bit for bit.

    These wait in the memory of the host. Nothing happens with optimizers that have only one kind of numbers.
    """
    if not (isinstance(optimizer, Adopted) and optimizer.has_modes):
        yield
        return
    parameters = [parameter for group in optimizer.param_groups for parameter in group["params"]]
    trained = [parameter.detach().to("cpu", copy=True) for parameter in parameters]
    optimizer.write_mode(is_training=False)
    try:
        yield
    finally:
        optimizer.write_mode(is_training=True)
        with torch.no_grad():
            for parameter, numbers in zip(parameters, trained, strict=True):
                parameter.copy_(numbers)


def load_class(source: str, name: str) -> type[torch.optim.Optimizer]:
    """The class `module:Name` of the optimizer `name`. Raises MissingExtraError where the library is not here or too old."""
    place, _, title = source.partition(":")
    package = place.partition(".")[0]
    module = load_library(place, what=f'optim.name = "{name}"')
    found: type[torch.optim.Optimizer] | None = getattr(module, title, None)
    if found is None:
        raise MissingExtraError(
            f'optim.name = "{name}" is not in the {package} that is installed.',
            got=f"{package} {getattr(load_module(package), '__version__', 'of an unknown version')} without {title}",
            fix=f"pip install -U {_PACKAGES.get(package, package)}",
        )
    return found


def load_library(module: str, *, what: str) -> ModuleType:
    """A module of an optional package, without its notes. Raises MissingExtraError where it is not installed."""
    package = module.partition(".")[0]
    try:
        with silenced():
            return load_module(module)
    except ModuleNotFoundError as error:
        if (error.name or "").partition(".")[0] != package:
            raise
        raise MissingExtraError(
            f"{what} needs a package that is not installed.", got=f"no {package}", fix=f"pip install {_PACKAGES.get(package, package)}"
        ) from error


@contextmanager
def silenced() -> Iterator[None]:
    """Libraries print and warn of what nothing here uses."""
    before = logging.root.manager.disable
    logging.disable(logging.ERROR)
    try:
        with redirect_stdout(io.StringIO()):
            yield
    finally:
        logging.disable(before)


def build_arguments(made: type[torch.optim.Optimizer], config: OptimConfig, *, without: Sequence[str] = ()) -> dict[str, Any]:
    """What the class's constructor is given, but for `without`. Raises ConfigError for settings and options that it does not take."""
    idle = _IDLE.get(made.__module__.partition(".")[0], set()) | _IDLE.get(made.__name__, set())
    taken = {key: one for key, one in inspect.signature(made.__init__).parameters.items() if key not in idle}
    arguments: dict[str, Any] = {
        "lr": config.lr,
        "betas": config.decays,
        "eps": config.chosen_eps,
        "weight_decay": config.chosen_weight_decay,
    }
    arguments = {key: value for key, value in arguments.items() if value is not None and key not in without}
    for key, value in arguments.items():
        if key not in taken:
            raise ConfigError(
                f"optim.{key} has no effect: the optimizer has no such setting.",
                got=f'optim.{key} = {value} with optim.name = "{config.name}"',
                expected="options: " + _list_options(taken),
                fix=f"remove optim.{key}",
            )
        _check_kind(f"optim.{key}", value, taken=taken[key])
    return arguments | _check_options(taken, config)


def _check_options(taken: Mapping[str, inspect.Parameter], config: OptimConfig) -> dict[str, Any]:
    options: dict[str, Any] = {}
    for key, value in config.options.items():
        if key in _OURS or key in _HELD_BACK or key not in taken:
            near = find_near(key, [one for one in taken if _is_option(one)])
            meant = "remove it" if near is None else f"write {near}"
            fix = f"set optim.{key}" if key in _OURS else _HELD_BACK.get(key, meant)
            raise ConfigError(
                f'optim.options cannot hold {key} with optim.name = "{config.name}".',
                got=f"{key} = {value}",
                expected=_list_options(taken),
                fix=fix,
            )
        default = taken[key].default
        _check_kind(f"optim.options.{key}", value, taken=taken[key])
        options[key] = tuple(value) if isinstance(value, list) and isinstance(default, tuple) else value
    return options


def _check_kind(key: str, value: object, *, taken: inspect.Parameter) -> None:
    """Refuse what is not of the default's kind: classes look at few of their values, and would fail in the first step."""
    default, kind = taken.default, type(taken.default)
    if isinstance(default, tuple):
        expected, fits = f"a list of {len(default)} numbers", isinstance(value, (list, tuple)) and len(value) == len(default)
    elif "|" in str(taken.annotation):  # several kinds
        return
    elif kind is bool:
        expected, fits = "true or false", isinstance(value, bool)
    elif kind in (int, float):
        expected, fits = "a number", isinstance(value, (int, float)) and not isinstance(value, bool)
    elif kind is str:
        expected, fits = "text", isinstance(value, str)
    else:
        return
    if not fits:
        raise ConfigError(
            f"{key} cannot have this value.",
            got=repr(list(value) if isinstance(value, tuple) else value),
            expected=expected,
            fix=f"set {key} to {expected} ({json.dumps(default)} is the library's own), or remove it",
        )


def _is_option(name: str) -> bool:
    return name not in (*_OURS, *_HELD_BACK, "self", "kwargs", "model")


def _list_options(taken: Mapping[str, inspect.Parameter]) -> str:
    return ", ".join(name for name in taken if _is_option(name)) or "none"


def build_adopted(made: type[torch.optim.Optimizer], groups: Groups, *, arguments: Mapping[str, Any], seed: int, name: str) -> Adopted:
    """One library's optimizer for groups. Raises ConfigError where its constructor refuses a value."""
    try:
        with silenced():
            inner = made(groups, **arguments)
    except (ValueError, TypeError, AssertionError, NotImplementedError) as error:
        raise ConfigError(
            f'optim.name = "{name}" refuses its settings: {error}.',
            got=", ".join(f"{key} = {value}" for key, value in arguments.items()),
            fix="change the settings of [optim], or remove them",
        ) from error
    adopted = Adopted([inner], seed=seed)
    adopted.write_mode(is_training=True)
    return adopted


@contextmanager
def _run_plainly(devices: set[torch.device]) -> Iterator[None]:
    """Torchao compiles its updates, which gains nothing where there is no GPU, and takes what not every machine has."""
    if find_spec("triton") is not None and any(device.type == "cuda" for device in devices):
        yield
        return
    with torch.compiler.set_stance("force_eager"):
        yield
