"""What a kind of training is: what learns, how it is put on the network, and how it lies in files."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from math import prod
from pathlib import Path
from typing import Any, Protocol

import torch
from torch import Tensor, nn

from weber.adapters.files import AdapterFile
from weber.adapters.full import Parameters
from weber.config.run import RunConfig
from weber.families.family import Family
from weber.families.tensors import Weights
from weber.optim.ema import Ema
from weber.progress import Progress
from weber.results.files import Model
from weber.results.runs import Saved, build_adapter_name, build_mean_path

Put = Callable[[nn.Module], None]
"""Puts what a run has learned on a transformer, to paint with."""


@dataclass(frozen=True)
class Trained:
    """What a run trains, known before weights are read.

    `modules`: the linear layers that get an adapter or whose weights are trained, with (inputs, outputs). `shapes`: the tensors that
    learn, by the names of the parameters. `dtype`: their precision. `rates`: what the learning rate is multiplied by, for those parameters
    that have one of their own. `settings`: what else the kind has to know of each of the modules.
    """

    modules: Mapping[str, tuple[int, int]]
    shapes: Mapping[str, tuple[int, ...]]
    dtype: torch.dtype
    rates: Mapping[str, float] = field(default_factory=dict)
    settings: Mapping[str, Any] = field(default_factory=dict)

    @property
    def num_parameters(self) -> int:
        """Numbers that learn."""
        return sum(prod(shape) for shape in self.shapes.values())

    @property
    def num_bytes(self) -> int:
        """Bytes of the numbers that learn."""
        return self.num_parameters * self.dtype.itemsize


@dataclass(frozen=True)
class Learned:
    """What has been learned so far, to be written: the network, its parameters and their running mean, and the facts of the training.

    `weights`, `means`: numbers of parameters and their mean, where other processes have some of them; they are read when they are written.
    """

    config: RunConfig
    family: Family
    transformer: nn.Module
    parameters: Parameters
    ema: Ema | None
    facts: Mapping[str, object]
    weights: Weights | None = None
    means: Weights | None = None


class Strong(Protocol):
    """What can be made weaker or stronger."""

    def write_strength(self, transformer: nn.Module, strength: float) -> None:
        """How strongly what is trained takes part, in a transformer or in one of its layers: 1 is as trained, 0 the model as it was
        before. Adapters only."""
        ...


class Kind(Strong, Protocol):
    """One kind of training.

    `is_adapter`: it is added to a model that stays as it was, so it has a strength, and the base model can be painted with at any time.
    `file`: the file of a checkpoint that holds it.
    """

    is_adapter: bool
    file: str

    def choose(self, config: RunConfig, family: Family, *, skeleton: nn.Module, dtype: torch.dtype) -> Trained:
        """What the settings mean for this model, which computes in `dtype`. Raises ConfigError or AdapterError."""
        ...

    def check(self, config: RunConfig, family: Family, *, trained: Trained) -> None:
        """Refuse settings of other sections that cannot act with it; reads no weights."""
        ...

    def build(
        self, transformer: nn.Module, config: RunConfig, *, trained: Trained, base: Weights, start: AdapterFile | None
    ) -> list[tuple[str, nn.Parameter]]:
        """Put it on a network that was read from `base`, in place; returns the parameters that learn."""
        ...

    def save(self, path: Path, learned: Learned) -> None:
        """Write the checkpoint's file."""
        ...

    def list_exact(self, learned: Learned) -> dict[str, Tensor]:
        """Parameters of the network whose numbers the checkpoint's file rounds, to be kept beside it as they are."""
        ...

    def load(self, path: Path, transformer: nn.Module, *, parameters: Parameters) -> None:
        """Put the numbers of a checkpoint's file back."""
        ...

    def finish(self, folder: Path, learned: Learned, *, progress: Progress) -> list[Path]:
        """Write the finished results, in all formats that were asked for; returns them, the one to go on with first."""
        ...

    def read(self, saved: Saved, family: Family, *, trained: Trained) -> Put:
        """What a run has saved, checked now, to be put on a network that is read later."""
        ...

    def list_notes(self, config: RunConfig, family: Family, *, trained: Trained) -> list[str]:
        """What programs make otherwise of the finished file than it says, a line each."""
        ...

    def describe(self, config: RunConfig, trained: Trained) -> tuple[str, str]:
        """A short and a longer line about it, for a person."""
        ...


def build_title(config: RunConfig) -> str:
    """What files say that they are called."""
    return config.output.name or config.output.folder.name


def list_linears(skeleton: nn.Module) -> dict[str, tuple[int, int]]:
    """The linear layers of a transformer, with (inputs, outputs)."""
    return {name: (one.in_features, one.out_features) for name, one in skeleton.named_modules() if isinstance(one, nn.Linear)}


def build_model(family: Family, weights: Weights) -> Model:
    """A whole model as files. A configuration that was read from a single file does not say which class it is of."""
    config = {**family.transformer_config, "_class_name": type(family.skeleton).__name__}
    return Model(weights, config, family.pairings, family.architecture)


def write_with_mean(learned: Learned, folder: Path, *, write: Callable[[Path], list[Path]]) -> list[Path]:
    """`write` the adapter into a folder, and its running mean beside it, if there is one; returns all that was written."""
    path = folder / build_adapter_name(learned.config)
    written = write(path)
    if learned.ema is not None:
        with learned.ema.swapped():
            written += write(build_mean_path(path))
    return written
