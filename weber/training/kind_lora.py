"""Training of low-rank adapters."""

from __future__ import annotations

from pathlib import Path

import torch
from torch import nn

from weber.adapters.files import AdapterFile, load_adapter, save_adapter
from weber.adapters.full import Parameters, load_tensors
from weber.adapters.lora import build_lora, list_factors, list_parameters, load_adapter_onto, load_factors, write_strength
from weber.adapters.merge import check_base
from weber.adapters.metadata import build_metadata
from weber.adapters.target import list_targets
from weber.config.run import RunConfig
from weber.data.seeds import build_seed
from weber.errors import ConfigError
from weber.families.family import Family
from weber.families.tensors import Weights, open_weights
from weber.progress import Progress
from weber.training.checks import DIFFUSERS, MERGED_FILE, MERGED_FOLDER, check_formats
from weber.training.convert import Named, write_formats
from weber.training.kind import Learned, Put, Trained, build_model, list_linears
from weber.training.runs import ADAPTER_NAME, Saved, build_mean_path


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
        self, transformer: nn.Module, config: RunConfig, *, trained: Trained, base: Weights, start: AdapterFile | None
    ) -> list[tuple[str, nn.Parameter]]:
        """See `Kind.build`."""
        seed = build_seed(config.train.seed, "adapter")
        return build_lora(transformer, config.adapter, modules=list(trained.modules), seed=seed, start=start)

    def write_strength(self, transformer: nn.Module, strength: float) -> None:
        """See `Kind.write_strength`."""
        write_strength(transformer, strength)

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
        model = build_model(family, weights)
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
