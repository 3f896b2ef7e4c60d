"""Training of the forms that LyCORIS has: LoKr, LoHa and others."""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping
from dataclasses import replace
from functools import partial
from pathlib import Path

import torch
from torch import Tensor, nn

from weber.adapters.files import AdapterFile
from weber.adapters.full import Parameters, check_tensors, load_tensors
from weber.adapters.lycoris import CHANGE, build_changes, write_strength
from weber.adapters.lycoris_files import (
    LycorisFile,
    list_entries,
    list_layer_changes,
    load_changes,
    load_lycoris,
    save_lycoris,
    write_start,
)
from weber.adapters.lycoris_forms import list_shapes
from weber.adapters.lycoris_merge import build_changed_weights
from weber.adapters.lycoris_names import list_readers
from weber.adapters.lycoris_targets import list_layers
from weber.adapters.merge import check_base
from weber.adapters.target import list_targets
from weber.config.lycoris import LycorisConfig
from weber.config.run import RunConfig
from weber.data.seeds import build_seed
from weber.errors import AdapterError, ConfigError
from weber.families.family import Family
from weber.families.tensors import Weights, open_weights
from weber.kinds.kind import Learned, Put, Trained, build_model, build_title, list_linears, write_with_mean
from weber.kinds.lora import read_computed
from weber.progress import Progress
from weber.results.files import build_precise_facts, save_whole
from weber.results.formats import DIFFUSERS, MERGED_FILE, MERGED_FOLDER, build_format_path, check_formats, check_merged
from weber.results.runs import ADAPTER_NAME, SUFFIX, Saved


class Lycoris:
    """Changes of linear layers in the forms of LyCORIS, in fp32."""

    is_adapter = True
    file = ADAPTER_NAME

    def choose(self, config: RunConfig, family: Family, *, skeleton: nn.Module, dtype: torch.dtype) -> Trained:
        """See `Kind.choose`."""
        adapter, lycoris = config.adapter, _get_settings(config)
        sets = family.adapter_targets
        names = (
            list_targets(skeleton, adapter.chosen_targets, sets=sets, exclude=adapter.exclude, blocks=adapter.blocks)
            if lycoris.apply_preset is None
            else []
        )
        settings, linears = list_layers(skeleton, lycoris, names=names), list_linears(skeleton)
        shapes: dict[str, tuple[int, ...]] = {}
        for name, one in settings.items():
            has_bias = skeleton.get_submodule(name).bias is not None
            try:
                own = list_shapes(one, linears[name], has_bias=has_bias)
            except AdapterError as error:
                raise AdapterError(error.what, got=f"{name} with {error.got}", expected=error.expected, fix=error.fix) from error
            shapes |= {f"{name}.{CHANGE}.{part}": shape for part, shape in own.items()}
        return Trained({name: linears[name] for name in settings}, shapes, torch.float32, settings=settings)

    def check(self, config: RunConfig, family: Family, *, trained: Trained) -> None:
        """See `Kind.check`."""
        formats = config.output.formats
        check_formats(formats, [], pairings=(), key="output.formats")
        layouts = [name for name in formats if name not in (DIFFUSERS, MERGED_FILE, MERGED_FOLDER)]
        if layouts:
            raise ConfigError(
                "These layouts are for LoRAs.",
                got=f'output.formats with {", ".join(layouts)}, and adapter.kind = "lycoris"',
                expected=f"{DIFFUSERS}, {MERGED_FOLDER}, {MERGED_FILE}",
                fix=f"remove it: ComfyUI and LyCORIS read {ADAPTER_NAME} as it is",
            )
        check_merged(config)
        if family.is_local and {MERGED_FILE, MERGED_FOLDER} & set(formats):
            check_base(family.open_transformer(), list(trained.modules))

    def build(
        self, transformer: nn.Module, config: RunConfig, *, trained: Trained, base: Weights, start: AdapterFile | None
    ) -> list[tuple[str, nn.Parameter]]:
        """See `Kind.build`."""
        memory = config.memory

        def read(name: str, layer: nn.Linear) -> Tensor:
            """Blocks that are on the disk have no numbers of their own."""
            is_away = memory.swap_blocks != 0 and memory.swap_to == "disk"
            return read_computed(layer, base[f"{name}.weight"].read()) if is_away else layer.weight.detach()

        transformer.requires_grad_(False)
        seed = build_seed(config.train.seed, "adapter")
        parameters = build_changes(transformer, trained.settings, shapes=trained.shapes, config=_get_settings(config), seed=seed, read=read)
        if start is not None:
            assert isinstance(start, LycorisFile)
            write_start(parameters, start)
        return parameters

    def write_strength(self, transformer: nn.Module, strength: float) -> None:
        """See `Kind.write_strength`."""
        write_strength(transformer, strength)

    def save(self, path: Path, learned: Learned) -> None:
        """See `Kind.save`: a file like the finished one."""
        self._save(path, learned)

    def list_exact(self, learned: Learned) -> dict[str, Tensor]:
        """See `Kind.list_exact`."""
        return {}

    def _save(self, path: Path, learned: Learned, *, precision: str | None = None) -> None:
        family, facts = learned.family, build_precise_facts(learned.facts, precision)
        save_lycoris(
            path,
            learned.transformer,
            architecture=family.architecture,
            title=build_title(learned.config),
            facts=facts,
            pairings=family.pairings,
            precision=precision,
        )

    def load(self, path: Path, transformer: nn.Module, *, parameters: Parameters) -> None:
        """See `Kind.load`."""
        load_changes(parameters, path)

    def finish(self, folder: Path, learned: Learned, *, progress: Progress) -> list[Path]:
        """See `Kind.finish`."""
        return write_with_mean(learned, folder, write=partial(self._write, learned=learned, progress=progress))

    def _write(self, path: Path, *, learned: Learned, progress: Progress) -> list[Path]:
        """The adapter, and whole models with it in their weights."""
        output = learned.config.output
        self._save(path, learned, precision=output.precision)
        written = [path]
        for name in dict.fromkeys(output.formats):
            if name == DIFFUSERS:
                continue
            model = build_model(learned.family, learned.family.open_transformer())
            model = replace(model, weights=build_changed_weights(model.weights, list_layer_changes(learned.transformer)))
            written.append(build_format_path(path.with_name(path.name.removesuffix(SUFFIX)), name))
            save_whole(written[-1], model, facts=learned.facts, progress=progress)
        return written

    def read(self, saved: Saved, family: Family, *, trained: Trained) -> Put:
        """See `Kind.read`."""
        config = saved.config
        entries = list_entries(load_lycoris(saved.path))
        if saved.ema is not None:
            entries |= open_weights([saved.ema])
        check_tensors(trained.shapes, entries, where=str(saved.path))

        def put(transformer: nn.Module) -> None:
            parameters = self.build(transformer, config, trained=trained, base=family.open_transformer(), start=None)
            load_tensors(parameters, entries, where=str(saved.path))

        return put

    def list_notes(self, config: RunConfig, family: Family, *, trained: Trained) -> list[str]:
        """See `Kind.list_notes`."""
        return list_readers(trained.settings, pairings=family.pairings)

    def describe(self, config: RunConfig, trained: Trained) -> tuple[str, str]:
        """See `Kind.describe`."""
        counts = Counter(one.algo for one in trained.settings.values())
        forms = ", ".join(f"{algo} on {count}" for algo, count in counts.items())
        return (
            f"LyCORIS ({', '.join(counts)}) of {trained.num_parameters:,} numbers",
            f"{forms} linear layers{_describe_sizes(trained.shapes)}, {trained.num_bytes / 2**20:.1f} MiB in fp32",
        )


def _get_settings(config: RunConfig) -> LycorisConfig:
    assert config.adapter.lycoris is not None
    return config.adapter.lycoris


def _describe_sizes(shapes: Mapping[str, tuple[int, ...]]) -> str:
    """The largest tensors of each kind."""
    largest: dict[str, tuple[int, ...]] = {}
    for name, shape in shapes.items():
        part = name.rpartition(".")[2]
        largest[part] = max(largest.get(part, ()), shape)
    return " with " + ", ".join(f"{part} up to {'x'.join(map(str, shape))}" for part, shape in largest.items())
