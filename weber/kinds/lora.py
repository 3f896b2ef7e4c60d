"""Training of low-rank adapters."""

from __future__ import annotations

from collections.abc import Mapping
from functools import partial
from pathlib import Path

import torch
from torch import Tensor, nn

from weber.adapters.files import AdapterFile, load_adapter
from weber.adapters.full import Parameters, load_tensors
from weber.adapters.layouts import list_readers
from weber.adapters.lora import build_lora, list_exact, list_factors, list_parameters, load_adapter_onto, load_factors, write_strength
from weber.adapters.merge import check_base, check_mergeable
from weber.adapters.rules import Setting, build_settings, check_rules, list_groups
from weber.adapters.target import list_targets
from weber.config.adapter import SHIFTED_STARTS
from weber.config.run import RunConfig
from weber.data.seeds import build_seed
from weber.errors import ConfigError
from weber.families.family import Family
from weber.families.tensors import Weights, open_weights
from weber.kinds.kind import Learned, Put, Trained, build_model, build_title, list_linears, write_with_mean
from weber.kinds.text import build_text_lora, choose_text
from weber.memory.load import choose_formats
from weber.memory.packed import PackedLinear
from weber.progress import Progress
from weber.results.files import Named, save_layout, write_formats
from weber.results.formats import DIFFUSERS, MERGED_FILE, MERGED_FOLDER, check_formats, check_merged
from weber.results.runs import ADAPTER_NAME, Saved


class Lora:
    """Low-rank adapters on linear layers, in fp32."""

    is_adapter = True
    file = ADAPTER_NAME

    def choose(self, config: RunConfig, family: Family, *, skeleton: nn.Module, dtype: torch.dtype) -> Trained:
        """See `Kind.choose`."""
        adapter = config.adapter
        names = list_targets(
            skeleton, adapter.chosen_targets, sets=family.adapter_targets, exclude=adapter.exclude, blocks=adapter.blocks
        )
        check_rules(adapter, names)
        linears, settings = list_linears(skeleton), build_settings(adapter, names)
        modules = {name: linears[name] for name in names}
        _check_ranks(modules, settings)
        shapes: dict[str, tuple[int, ...]] = {}
        rates: dict[str, float] = {}
        for name, (inputs, outputs) in modules.items():
            setting = settings[name]
            own: dict[str, tuple[int, ...]] = {
                f"{name}.lora_A.default.weight": (setting.rank, inputs),
                f"{name}.lora_B.default.weight": (outputs, setting.rank),
                **({f"{name}.lora_magnitude_vector.default.weight": (outputs,)} if adapter.dora else {}),
            }
            shapes |= own
            rates |= {} if setting.rate is None else dict.fromkeys(own, setting.rate / config.optim.choose_lr(adapter.form))
        text = choose_text(config, family)
        return Trained({**modules, **text.modules}, {**shapes, **text.shapes}, torch.float32, {**rates, **text.rates}, settings)

    def check(self, config: RunConfig, family: Family, *, trained: Trained) -> None:
        """See `Kind.check`."""
        formats, is_merged = config.output.formats, bool({MERGED_FILE, MERGED_FOLDER} & set(config.output.formats))
        names = list(trained.modules)
        check_formats(formats, names, pairings=family.pairings, key="output.formats", is_dora=config.adapter.dora)
        if config.adapter.init == "loftq":
            _check_loftq(config, family, trained=trained)
        check_merged(config)
        if is_merged:
            check_mergeable(names)
        if family.is_local and is_merged:
            check_base(family.open_transformer(), names)

    def build(
        self, transformer: nn.Module, config: RunConfig, *, trained: Trained, base: Weights, start: AdapterFile | None
    ) -> list[tuple[str, nn.Parameter]]:
        """See `Kind.build`."""
        seed, memory = build_seed(config.train.seed, "adapter"), config.memory

        def read(name: str, layer: nn.Linear) -> Tensor:
            return read_computed(layer, base[f"{name}.weight"].read())

        parameters = build_lora(
            transformer,
            config.adapter,
            modules=list(trained.settings),
            seed=seed,
            start=start,
            settings=trained.settings,
            read=read if memory.swap_blocks != 0 and memory.swap_to == "disk" and not next(transformer.parameters()).is_meta else None,
        )
        return parameters + build_text_lora(transformer, config, trained=trained, start=start)

    def write_strength(self, transformer: nn.Module, strength: float) -> None:
        """See `Kind.write_strength`."""
        write_strength(transformer, strength)

    def save(self, path: Path, learned: Learned) -> None:
        """See `Kind.save`: an adapter file like the finished one."""
        adapter = Named(list_factors(learned.transformer), learned.facts, build_title(learned.config))
        family = learned.family
        save_layout(path, adapter, layout=DIFFUSERS, architecture=family.architecture, pairings=family.pairings)

    def list_exact(self, learned: Learned) -> dict[str, Tensor]:
        """See `Kind.list_exact`."""
        return list_exact(learned.transformer)

    def load(self, path: Path, transformer: nn.Module, *, parameters: Parameters) -> None:
        """See `Kind.load`."""
        load_factors(transformer, load_adapter(path).modules)

    def finish(self, folder: Path, learned: Learned, *, progress: Progress) -> list[Path]:
        """See `Kind.finish`."""
        return write_with_mean(learned, folder, write=partial(self._write, learned=learned, progress=progress))

    def _write(self, path: Path, *, learned: Learned, progress: Progress) -> list[Path]:
        """The adapter, and the same in the other formats."""
        family, output = learned.family, learned.config.output
        formats = [name for name in output.formats if name != DIFFUSERS]
        weights = family.open_transformer() if {MERGED_FILE, MERGED_FOLDER} & set(formats) else {}
        model = build_model(family, weights)
        named = Named(list_factors(learned.transformer), learned.facts, build_title(learned.config), output.precision)
        save_layout(path, named, layout=DIFFUSERS, architecture=family.architecture, pairings=family.pairings)
        return [path, *write_formats(named, formats, model=model, folder=path.parent, stem=path.stem, progress=progress)]

    def read(self, saved: Saved, family: Family, *, trained: Trained) -> Put:
        """See `Kind.read`."""
        adapter = load_adapter(saved.path)
        mean = None if saved.ema is None else open_weights([saved.ema])
        is_joined = all(name in trained.settings and one.rank == 2 * trained.settings[name].rank for name, one in adapter.modules.items())
        init = saved.config.adapter.init if is_joined else "default"

        def put(transformer: nn.Module) -> None:
            load_adapter_onto(transformer, adapter, init=init, is_exact=saved.config.adapter.compute == "fp32")
            if mean is not None:
                load_tensors(list_parameters(transformer), mean, where=str(saved.ema))

        return put

    def list_notes(self, config: RunConfig, family: Family, *, trained: Trained) -> list[str]:
        """See `Kind.list_notes`."""
        return list_readers(trained.modules, pairings=family.pairings)

    def describe(self, config: RunConfig, trained: Trained) -> tuple[str, str]:
        """See `Kind.describe`."""
        adapter, groups = config.adapter, list_groups(trained.settings)
        told = [next(iter(trained.settings.values())).describe()] if not groups else []
        told += ["scaled by alpha / sqrt(rank)"] if adapter.rslora else []
        told += ["with lengths of its own (DoRA)"] if adapter.dora else []
        told += [f"starts as {adapter.init}"] if adapter.init != "default" else []
        told += ["twice the rank in the file, without its start"] if adapter.init in SHIFTED_STARTS else []
        num_text = len(trained.modules) - len(trained.settings)
        layers = f"{len(trained.settings)} linear layers" + (f" and {num_text} of CLIP" if num_text else "")
        size = f"on {layers}, {trained.num_bytes / 2**20:.1f} MiB in fp32"
        return f"LoRA of {trained.num_parameters:,} numbers", "\n".join([", ".join([*told, size]), *groups])


def read_computed(layer: nn.Linear, weight: Tensor) -> Tensor:
    """The weight that a layer computes with, from the one that it was made of."""
    if isinstance(layer, PackedLinear):
        packed = layer.format.pack(weight.to(layer.dtype))
        return layer.format.unpack(packed, shape=(layer.out_features, layer.in_features), dtype=layer.dtype)
    return weight.to(layer.weight.dtype)


def _check_ranks(modules: Mapping[str, tuple[int, int]], settings: Mapping[str, Setting]) -> None:
    """Refuse a rank that no layer with it has."""
    largest: dict[int, int] = {}
    for name, shape in modules.items():
        rank = settings[name].rank
        largest[rank] = max(largest.get(rank, 0), min(shape))
    for rank, limit in largest.items():
        if rank > limit:
            raise ConfigError(
                "The rank is higher than any of the layers has.",
                got=f"adapter.rank = {rank}" if len(largest) == 1 else f"rank {rank} in adapter",
                expected=f"at most {limit}; 4 to 128 is usual",
                fix="lower adapter.rank" if len(largest) == 1 else "lower adapter.rank or that of its rule in adapter.rules",
            )


def _check_loftq(config: RunConfig, family: Family, *, trained: Trained) -> None:
    """It starts with what quantization has taken from the layers."""
    formats = choose_formats(family, family.skeleton, memory=config.memory, trained=trained.shapes)
    if config.memory.quantize == "none" or not any(name in formats for name in trained.modules):
        raise ConfigError(
            "The start stands for what quantization takes from a layer, and none that gets an adapter is quantized.",
            got=f'adapter.init = "loftq", memory.quantize = "{config.memory.quantize}"',
            fix='set memory.quantize itself, or choose another adapter.init, such as "pissa"',
        )
    if config.objective.teacher_draws is not None:
        raise ConfigError(
            "The kept answers of the model would be those of the quantized model, without what the start gives back to it.",
            got=f'adapter.init = "loftq", objective.teacher_draws = {config.objective.teacher_draws}',
            fix="remove objective.teacher_draws, or choose another adapter.init",
        )
