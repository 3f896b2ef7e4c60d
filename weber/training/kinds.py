"""The kinds of training: what learns, how it is put on the network, and how it lies in files. The only place where they differ."""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from math import prod
from pathlib import Path
from typing import Protocol

import torch
from torch import nn

from weber.adapters.files import AdapterFile, load_adapter, save_adapter
from weber.adapters.full import Parameters, build_full, build_whole_weights, check_tensors, check_whole, list_trained, load_tensors
from weber.adapters.lora import build_lora, list_factors, list_parameters, load_adapter_onto, load_factors
from weber.adapters.merge import check_base
from weber.adapters.metadata import FACTS_KEY, build_metadata
from weber.adapters.model import check_folder
from weber.adapters.target import list_targets
from weber.config.model import ModelConfig
from weber.config.run import RunConfig
from weber.data.seeds import build_seed
from weber.errors import ConfigError
from weber.families.family import Family
from weber.families.table import open_transformer
from weber.families.tensors import Weights, build_entry, open_weights, save_weights
from weber.memory.load import choose_formats
from weber.optim.ema import Ema
from weber.optim.table import check_optimizer
from weber.progress import Progress
from weber.training.checks import DIFFUSERS, MERGED_FILE, MERGED_FOLDER, check_formats
from weber.training.convert import (
    Model,
    Named,
    check_model_formats,
    check_replaced,
    list_models,
    save_model,
    write_formats,
)
from weber.training.runs import ADAPTER_NAME, TRAINED_NAME, Saved, build_mean_path

Put = Callable[[nn.Module], None]
"""Puts what a run has learned on a transformer, to paint with."""


@dataclass(frozen=True)
class Trained:
    """What a run trains, known before weights are read.

    `modules`: the linear layers that get an adapter or whose weights are trained, with (inputs, outputs). `shapes`: the tensors that
    learn, by the names of the parameters. `dtype`: their precision.
    """

    modules: Mapping[str, tuple[int, int]]
    shapes: Mapping[str, tuple[int, ...]]
    dtype: torch.dtype

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
    """What has been learned so far, to be written: the network, its parameters and their running mean, and the facts of the training."""

    config: RunConfig
    family: Family
    transformer: nn.Module
    parameters: Parameters
    ema: Ema | None
    facts: Mapping[str, object]


class Kind(Protocol):
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
        self, transformer: nn.Module, config: RunConfig, *, family: Family, trained: Trained, start: AdapterFile | None
    ) -> list[tuple[str, nn.Parameter]]:
        """Put it on a network that was read, in place; returns the parameters that learn."""
        ...

    def save(self, path: Path, learned: Learned) -> None:
        """Write the checkpoint's file."""
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

    def describe(self, config: RunConfig, trained: Trained) -> tuple[str, str]:
        """A short and a longer line about it, for a person."""
        ...


class Lora:
    """Low-rank adapters on linear layers, in fp32."""

    is_adapter = True
    file = ADAPTER_NAME

    def choose(self, config: RunConfig, family: Family, *, skeleton: nn.Module, dtype: torch.dtype) -> Trained:
        """See `Kind.choose`."""
        names, rank = list_targets(skeleton, config.adapter.chosen_targets, sets=family.adapter_targets), config.adapter.rank
        linears = list_linears(skeleton)
        modules = {name: linears[name] for name in names}
        largest = max(min(shape) for shape in modules.values())
        if rank > largest:
            raise ConfigError(
                "The rank is higher than any of the layers has.",
                got=f"adapter.rank = {rank}",
                expected=f"at most {largest}; 4 to 128 is usual",
                fix="lower adapter.rank",
            )
        shapes: dict[str, tuple[int, ...]] = {}
        for name, (inputs, outputs) in modules.items():
            shapes |= {f"{name}.lora_A.default.weight": (rank, inputs), f"{name}.lora_B.default.weight": (outputs, rank)}
        return Trained(modules, shapes, torch.float32)

    def check(self, config: RunConfig, family: Family, *, trained: Trained) -> None:
        """See `Kind.check`."""
        check_formats(config.output.formats, list(trained.modules), pairings=family.pairings, key="output.formats")
        if family.is_local and {MERGED_FILE, MERGED_FOLDER} & set(config.output.formats):
            check_base(family.open_transformer(), list(trained.modules))

    def build(
        self, transformer: nn.Module, config: RunConfig, *, family: Family, trained: Trained, start: AdapterFile | None
    ) -> list[tuple[str, nn.Parameter]]:
        """See `Kind.build`."""
        seed = build_seed(config.train.seed, "adapter")
        return build_lora(transformer, config.adapter, modules=list(trained.modules), seed=seed, start=start)

    def save(self, path: Path, learned: Learned) -> None:
        """See `Kind.save`: an adapter file like the finished one."""
        modules, family, title = list_factors(learned.transformer), learned.family, learned.config.output.folder.name
        metadata = build_metadata(modules, architecture=family.architecture, title=title, facts=learned.facts)
        save_adapter(path, modules, layout=DIFFUSERS, facts=learned.facts, metadata=metadata, pairings=family.pairings)

    def load(self, path: Path, transformer: nn.Module, *, parameters: Parameters) -> None:
        """See `Kind.load`."""
        load_factors(transformer, load_adapter(path).modules)

    def finish(self, folder: Path, learned: Learned, *, progress: Progress) -> list[Path]:
        """See `Kind.finish`."""
        written = self._write(folder / ADAPTER_NAME, learned, progress=progress)
        if learned.ema is not None:
            with learned.ema.swapped():
                written += self._write(build_mean_path(folder / ADAPTER_NAME), learned, progress=progress)
        return written

    def _write(self, path: Path, learned: Learned, *, progress: Progress) -> list[Path]:
        """The adapter, and the same in the other formats."""
        self.save(path, learned)
        family = learned.family
        formats = [name for name in learned.config.output.formats if name != DIFFUSERS]
        weights = family.open_transformer() if {MERGED_FILE, MERGED_FOLDER} & set(formats) else {}
        model = _build_model(family, weights)
        named = Named(list_factors(learned.transformer), learned.facts, path.parent.name)
        return [path, *write_formats(named, formats, model=model, folder=path.parent, stem=path.stem, progress=progress)]

    def read(self, saved: Saved, family: Family, *, trained: Trained) -> Put:
        """See `Kind.read`."""
        adapter = load_adapter(saved.path)
        mean = None if saved.ema is None else open_weights([saved.ema])

        def put(transformer: nn.Module) -> None:
            load_adapter_onto(transformer, adapter)
            if mean is not None:
                load_tensors(list_parameters(transformer), mean, where=str(saved.ema))

        return put

    def describe(self, config: RunConfig, trained: Trained) -> tuple[str, str]:
        """See `Kind.describe`."""
        adapter = config.adapter
        alpha = adapter.rank if adapter.alpha is None else adapter.alpha
        return (
            f"LoRA of {trained.num_parameters:,} numbers",
            f"rank {adapter.rank}, alpha {alpha:g}, on {len(trained.modules)} linear layers, {trained.num_bytes / 2**20:.1f} MiB in fp32",
        )


class Full:
    """The weights of the transformer themselves, all or some."""

    is_adapter = False
    file = TRAINED_NAME

    def choose(self, config: RunConfig, family: Family, *, skeleton: nn.Module, dtype: torch.dtype) -> Trained:
        """See `Kind.choose`."""
        names = list_trained(skeleton, config.adapter.chosen_targets, sets=family.adapter_targets)
        shapes = {name: tuple(skeleton.get_parameter(name).shape) for name in names}
        modules = {name: shape for name, shape in list_linears(skeleton).items() if f"{name}.weight" in shapes}
        return Trained(modules, shapes, {"auto": dtype, "fp32": torch.float32, "bf16": torch.bfloat16}[config.adapter.precision])

    def check(self, config: RunConfig, family: Family, *, trained: Trained) -> None:
        """See `Kind.check`."""
        check_model_formats(config.output.formats, key="output.formats")
        check_optimizer(config.optim, [trained.dtype])
        self._check_quantize(config, family, trained=trained)
        if family.is_local:
            check_whole(family.open_transformer(), trained.shapes)
        self._check_places(config)

    def build(
        self, transformer: nn.Module, config: RunConfig, *, family: Family, trained: Trained, start: AdapterFile | None
    ) -> list[tuple[str, nn.Parameter]]:
        """See `Kind.build`."""
        return build_full(transformer, trained.shapes.keys(), precision=trained.dtype, base=family.open_transformer())

    def save(self, path: Path, learned: Learned) -> None:
        """See `Kind.save`: the trained tensors in their own precision, under the library's names."""
        save_weights(path, _build_entries(learned.parameters), metadata={FACTS_KEY: json.dumps(learned.facts, sort_keys=True)})

    def load(self, path: Path, transformer: nn.Module, *, parameters: Parameters) -> None:
        """See `Kind.load`."""
        load_tensors(parameters, open_weights([path]), where=str(path))

    def finish(self, folder: Path, learned: Learned, *, progress: Progress) -> list[Path]:
        """See `Kind.finish`: whole models, in the precision of the base's files."""
        paths = list_models(learned.config.output.formats, folder)
        written = self._write(paths, _build_entries(learned.parameters), learned, progress=progress)
        if learned.ema is not None:
            means = {name: build_entry(tensor) for name, tensor in learned.ema.list_tensors().items()}
            written += self._write([build_mean_path(path) for path in paths], means, learned, progress=progress)
        return written

    def _write(self, paths: Sequence[Path], trained: Weights, learned: Learned, *, progress: Progress) -> list[Path]:
        model = _build_model(learned.family, build_whole_weights(learned.family.open_transformer(), trained))
        for path in paths:
            save_model(path, model, facts=learned.facts, progress=progress)
        return list(paths)

    def read(self, saved: Saved, family: Family, *, trained: Trained) -> Put:
        """See `Kind.read`."""
        if saved.path.name == TRAINED_NAME:
            weights: Weights = open_weights([saved.path] if saved.ema is None else [saved.path, saved.ema])
        else:
            weights = open_transformer(ModelConfig(path=str(saved.path))).weights
        check_tensors(trained.shapes, weights, where=str(saved.path))

        def put(transformer: nn.Module) -> None:
            load_tensors([(name, transformer.get_parameter(name)) for name in trained.shapes], weights, where=str(saved.path))

        return put

    def describe(self, config: RunConfig, trained: Trained) -> tuple[str, str]:
        """See `Kind.describe`."""
        targets = config.adapter.chosen_targets
        named = targets if isinstance(targets, str) else ", ".join(targets)
        precision = {torch.float32: "fp32", torch.bfloat16: "bf16"}[trained.dtype]
        return (
            f"full training of {trained.num_parameters:,} numbers",
            f"targets {named}: {len(trained.shapes)} tensors, {trained.num_bytes / 2**20:,.1f} MiB in {precision}",
        )

    def _check_quantize(self, config: RunConfig, family: Family, *, trained: Trained) -> None:
        """Only frozen layers are packed."""
        form = config.memory.quantize
        formats = choose_formats(family, family.load_skeleton(), memory=config.memory, trained=trained.shapes)
        if form != "none" and form not in formats.values():
            raise ConfigError(
                "Weights that are trained are not quantized, and here no others would be.",
                got=f"memory.quantize = {form!r}, adapter.targets = {config.adapter.chosen_targets!r}",
                fix="remove memory.quantize, train fewer layers (adapter.targets), or train a LoRA (adapter.kind = \"lora\")",
            )

    def _check_places(self, config: RunConfig) -> None:
        """The finished model must not replace the one that it is made from, nor anything else."""
        inputs = [Path(place).expanduser().absolute() for place in (config.model.path, config.model.transformer) if place is not None]
        finished = list_models(config.output.formats, config.output.folder.expanduser().absolute())
        means = [] if config.optim.ema_decay is None else [build_mean_path(path) for path in finished]
        for target in (*finished, *means):
            for one in (place.resolve() for place in inputs):
                if target.resolve() in (one, one / target.name, *one.parents):
                    raise ConfigError(
                        "The trained model would replace the one that it is made from.",
                        got=f"output.folder = {config.output.folder}, whose {target.name} is or holds {one}",
                        fix="choose another output.folder",
                    )
            check_replaced(target, key="output.folder")
            check_folder(target)


KINDS: Mapping[str, Kind] = {"lora": Lora(), "full": Full()}
"""By `adapter.kind`."""


def list_linears(skeleton: nn.Module) -> dict[str, tuple[int, int]]:
    """The linear layers of a transformer, with (inputs, outputs)."""
    return {name: (one.in_features, one.out_features) for name, one in skeleton.named_modules() if isinstance(one, nn.Linear)}


def _build_model(family: Family, weights: Weights) -> Model:
    """A configuration that was read from a single file does not say which class it is of."""
    config = {**family.transformer_config, "_class_name": type(family.load_skeleton()).__name__}
    return Model(weights, config, family.pairings, family.architecture)


def _build_entries(parameters: Parameters) -> Weights:
    """The numbers as they are now, wherever they are."""
    return {name: build_entry(parameter.detach()) for name, parameter in parameters}
