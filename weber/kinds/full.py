"""Training of the transformer's own weights."""

from __future__ import annotations

import json
from collections.abc import Sequence
from pathlib import Path

import torch
from torch import Tensor, nn

from weber.adapters.files import AdapterFile
from weber.adapters.full import Parameters, build_full, build_whole_weights, check_tensors, check_whole, list_trained, load_tensors
from weber.adapters.metadata import FACTS_KEY
from weber.adapters.model import check_folder
from weber.config.model import ModelConfig
from weber.config.run import RunConfig
from weber.errors import ConfigError
from weber.families.family import Family
from weber.families.table import open_transformer
from weber.families.tensors import Weights, build_entry, open_weights, save_weights
from weber.kinds.kind import Learned, Put, Trained, build_model, list_linears
from weber.memory.load import choose_formats
from weber.progress import Progress
from weber.results.files import save_model
from weber.results.formats import check_model_formats, list_models
from weber.results.runs import TRAINED_NAME, Saved, build_mean_path
from weber.results.targets import check_replaced


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
        self._check_quantize(config, family, trained=trained)
        if family.is_local:
            check_whole(family.open_transformer(), trained.shapes)
        self._check_places(config)

    def build(
        self, transformer: nn.Module, config: RunConfig, *, trained: Trained, base: Weights, start: AdapterFile | None
    ) -> list[tuple[str, nn.Parameter]]:
        """See `Kind.build`."""
        return build_full(transformer, trained.shapes.keys(), precision=trained.dtype, base=base)

    def write_strength(self, transformer: nn.Module, strength: float) -> None:
        """See `Kind.write_strength`."""
        assert strength == 1, "the model as it was before is there no longer"

    def save(self, path: Path, learned: Learned) -> None:
        """See `Kind.save`: the trained tensors in their own precision, under the library's names."""
        save_weights(path, _build_entries(learned), metadata={FACTS_KEY: json.dumps(learned.facts, sort_keys=True)})

    def list_exact(self, learned: Learned) -> dict[str, Tensor]:
        """See `Kind.list_exact`."""
        return {}

    def load(self, path: Path, transformer: nn.Module, *, parameters: Parameters) -> None:
        """See `Kind.load`."""
        load_tensors(parameters, open_weights([path]), where=str(path))

    def finish(self, folder: Path, learned: Learned, *, progress: Progress) -> list[Path]:
        """See `Kind.finish`: whole models, in the precision of the base's files."""
        paths = list_models(learned.config.output.formats, folder, name=learned.config.output.name)
        written = self._write(paths, _build_entries(learned), learned, progress=progress)
        if learned.ema is not None:
            means = learned.means or {name: build_entry(tensor) for name, tensor in learned.ema.list_tensors().items()}
            written += self._write([build_mean_path(path) for path in paths], means, learned, progress=progress)
        return written

    def _write(self, paths: Sequence[Path], trained: Weights, learned: Learned, *, progress: Progress) -> list[Path]:
        model = build_model(learned.family, build_whole_weights(learned.family.open_transformer(), trained))
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

    def list_notes(self, config: RunConfig, family: Family, *, trained: Trained) -> list[str]:
        """See `Kind.list_notes`."""
        return []

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
        formats = choose_formats(family, family.skeleton, memory=config.memory, trained=trained.shapes)
        if form != "none" and form not in formats.values():
            raise ConfigError(
                "Weights that are trained are not quantized, and here no others would be.",
                got=f"memory.quantize = {form!r}, adapter.targets = {config.adapter.chosen_targets!r}",
                fix="remove memory.quantize, train fewer layers (adapter.targets), or train a LoRA (adapter.kind = \"lora\")",
            )

    def _check_places(self, config: RunConfig) -> None:
        """The finished model must not replace the one that it is made from, nor anything else."""
        inputs = [Path(place).expanduser().absolute() for place in (config.model.path, config.model.transformer) if place is not None]
        output = config.output
        finished = list_models(output.formats, output.folder.expanduser().absolute(), name=output.name)
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


def _build_entries(learned: Learned) -> Weights:
    """The numbers as they are now, wherever they are."""
    return learned.weights or {name: build_entry(parameter.detach()) for name, parameter in learned.parameters}
