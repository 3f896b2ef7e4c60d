"""From files to files: adapters in other layouts, adapters added up, merged into their model, or taken out of a fine-tune."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from weber.adapters.extract import Extraction, build_extraction
from weber.adapters.factors import Factors
from weber.adapters.files import AdapterFile, load_adapter, save_adapter
from weber.adapters.layouts import LAYOUTS
from weber.adapters.merge import Weighted, build_merged_adapter, build_merged_weights
from weber.adapters.metadata import FACTS_KEY, build_metadata
from weber.adapters.model import save_model_file, save_model_folder
from weber.adapters.target import is_target
from weber.config.load import load_config
from weber.config.model import ModelConfig
from weber.config.run import RunConfig
from weber.errors import AdapterError, ConfigError
from weber.families.family import Family
from weber.families.pairing import Pairing
from weber.families.table import FAMILIES, open_transformer
from weber.families.tensors import Weights
from weber.progress import Progress
from weber.training.checks import DIFFUSERS, MERGED_FILE, MERGED_FOLDER, check_formats
from weber.training.state import ADAPTER_NAME, CONFIG_NAME

SUFFIX = ".safetensors"


@dataclass(frozen=True)
class Model:
    """A whole transformer as files."""

    weights: Weights
    config: Mapping[str, object]
    pairings: Sequence[Pairing]
    architecture: str


@dataclass(frozen=True)
class Named:
    """An adapter with what its files are to say of it."""

    modules: Mapping[str, Factors]
    facts: Mapping[str, object]
    title: str


def write_formats(
    adapter: Named, formats: Sequence[str], *, family: Family, folder: Path, stem: str, progress: Progress
) -> list[Path]:
    """Write an adapter in other formats beside each other; returns the files and folders."""
    written = []
    for name in formats:
        path = _name_file(folder, stem, name)
        if name in LAYOUTS:
            save_layout(path, adapter, layout=name, architecture=family.architecture, pairings=family.pairings)
        else:
            model = Model(family.open_transformer(), family.transformer_config, family.pairings, family.architecture)
            save_merged(path, model, parts=[(adapter.modules, 1.0)], facts=adapter.facts, progress=progress)
        written.append(path)
    return written


def export(source: Path, formats: Sequence[str], *, base: str | None, out: Path | None, progress: Progress) -> list[Path]:
    """Write the adapter of a run folder, or an adapter file of any layout, in other formats.

    Raises ConfigError or AdapterError before anything is written.
    """
    path = source / ADAPTER_NAME if source.is_dir() else source
    adapter = load_adapter(path)
    named = Named(adapter.modules, adapter.facts, path.parent.name if path.name == ADAPTER_NAME else path.stem)
    pairings = _find_pairings(adapter)
    check_formats(formats, list(adapter.modules), pairings=pairings, key="--format")
    config = _find_config(path, base)
    if config is None and not set(formats) <= set(LAYOUTS):
        raise ConfigError(
            "The model to merge into is not known.",
            got=f"--format {' '.join(formats)}, and {path} lies in no run folder",
            fix="add --base with the model: a variant (`weber variants`), a folder, a hub id or a file",
        )
    written = []
    for name in formats:
        target = _name_file(out or path.parent, path.stem, name)
        if name in LAYOUTS:
            save_layout(target, named, layout=name, architecture=_find_architecture(adapter), pairings=pairings)
        else:
            assert config is not None
            model = _open_model(config, architecture=_find_architecture(adapter))
            save_merged(target, model, parts=[(adapter.modules, 1.0)], facts=adapter.facts, progress=progress)
        written.append(target)
    return written


def merge(
    adapters: Sequence[tuple[Path, float]], *, base: str | None, out: Path, layout: str | None, rank: int | None, progress: Progress
) -> None:
    """Add adapters up, each with its weight: into one adapter file, or with `base` into a whole model."""
    if not adapters:
        fix = "weber merge one.safetensors:0.8 two.safetensors --out both.safetensors"
        raise ConfigError("There is nothing to merge.", got="no adapter", fix=fix)
    loaded = [(load_adapter(path), weight) for path, weight in adapters]
    parts: list[Weighted] = [(adapter.modules, weight) for adapter, weight in loaded]
    facts = {"merged": [f"{path.name}:{weight:g}" for path, weight in adapters]}
    architecture = _find_architecture(loaded[0][0])
    if base is not None:
        if layout is not None or rank is not None:
            raise ConfigError("A whole model has no rank and no adapter layout.", got="--base with --layout or --rank", fix="remove them")
        save_merged(out, _open_model(read_base(base), architecture=architecture), parts=parts, facts=facts, progress=progress)
        return
    if rank is not None and rank < 1:
        raise ConfigError("A rank is 1 or more.", got=f"--rank {rank}", fix="leave it out to add the ranks up")
    _check_file(out)
    pairings = _find_pairings(*(adapter for adapter, _ in loaded))
    check_formats([layout or DIFFUSERS], [name for modules, _ in parts for name in modules], pairings=pairings, key="--layout")
    merged = Named(build_merged_adapter(parts, rank=rank), {"architecture": architecture, **facts}, out.stem)
    save_layout(out, merged, layout=layout or DIFFUSERS, architecture=architecture, pairings=pairings)


def extract(
    tuned: str, *, base: str, targets: str, rank: int | None, energy: float | None, out: Path, layout: str, progress: Progress
) -> Extraction:
    """Write the LoRA that turns one model into another, on the layers that a target set or a pattern means."""
    _check_file(out)
    before, after = (open_transformer(read_base(text)) for text in (base, tuned))
    linears = [name.removesuffix(".weight") for name, entry in before.weights.items() if len(entry.shape) == 2]
    patterns = before.row.targets.get(targets, [targets])
    modules = [name for name in linears if any(is_target(name, pattern) for pattern in patterns)]
    if not modules:
        raise ConfigError(
            "The targets mean no layer of the model.",
            got=f"--targets {targets}",
            expected=", ".join(before.row.targets),
            fix="name a set, or the end of a layer's name, such as attn.to_q",
        )
    check_formats([layout], modules, pairings=before.row.pairings, key="--layout")
    extraction = build_extraction(before.weights, after.weights, modules=modules, rank=rank, energy=energy, progress=progress)
    named = Named(extraction.modules, {"extracted": tuned, "model": base}, out.stem)
    save_layout(out, named, layout=layout, architecture="", pairings=before.row.pairings)
    return extraction


def save_layout(path: Path, adapter: Named, *, layout: str, architecture: str, pairings: Sequence[Pairing]) -> None:
    """Write an adapter file with everything that other programs show of it."""
    metadata = build_metadata(adapter.modules, architecture=architecture, title=adapter.title, facts=adapter.facts)
    save_adapter(path, adapter.modules, layout=layout, facts=adapter.facts, metadata=metadata, pairings=pairings)


def save_merged(path: Path, model: Model, *, parts: Sequence[Weighted], facts: Mapping[str, object], progress: Progress) -> None:
    """Write a whole transformer: one file with the makers' names if `path` ends as one, else a folder in the library's layout."""
    weights = build_merged_weights(model.weights, parts)
    metadata = {FACTS_KEY: json.dumps(facts, sort_keys=True)}
    metadata |= {"modelspec.architecture": model.architecture} if model.architecture else {}
    if path.suffix == SUFFIX:
        save_model_file(path, weights, pairings=model.pairings, config=model.config, metadata=metadata, progress=progress)
    else:
        save_model_folder(path / "transformer", weights, config=model.config, metadata=metadata, progress=progress)


def read_base(text: str) -> ModelConfig:
    """A model in one word: a variant's name, a folder, a hub id or a single file."""
    names = {name for row in FAMILIES for name in row.variants}
    return ModelConfig(variant=text) if text in names else ModelConfig(path=text)


def read_weighted(text: str) -> tuple[Path, float]:
    """`file:0.8` as (file, 0.8); without a number the weight is 1. Raises ConfigError where there is no such file."""
    path, colon, number = text.rpartition(":")
    try:
        found = (Path(path), float(number)) if colon and not Path(text).exists() else (Path(text), 1.0)
    except ValueError:
        found = (Path(text), 1.0)
    if not found[0].is_file():
        raise ConfigError("There is no such adapter file.", got=text, expected="a file, as FILE or FILE:WEIGHT", fix="correct it")
    return found


def _find_config(path: Path, base: str | None) -> ModelConfig | None:
    """The model that was named, or that of the run whose folder (or checkpoint) the file lies in."""
    if base is not None:
        return read_base(base)
    home = next((one for one in (path.parent, path.parent.parent) if (one / CONFIG_NAME).is_file()), None)
    config: RunConfig | None = None if home is None else load_config(home / CONFIG_NAME)
    return None if config is None else config.model


def _open_model(config: ModelConfig, *, architecture: str) -> Model:
    opened = open_transformer(config)
    return Model(opened.weights, opened.config, opened.row.pairings, architecture)


def _find_pairings(*adapters: AdapterFile) -> Sequence[Pairing]:
    """The makers' names for adapters whose model is not at hand: their layers say which family they are of."""
    fitting = [row for row in FAMILIES if all(row.transformer_class in adapter.classes for adapter in adapters)]
    if not fitting:
        raise AdapterError(
            "These are not adapters of one model that weber knows.",
            got="; ".join(", ".join(list(adapter.modules)[:2]) for adapter in adapters),
            expected=", ".join(row.transformer_class for row in FAMILIES),
            fix="give adapters of one family",
        )
    return fitting[0].pairings


def _find_architecture(adapter: AdapterFile) -> str:
    said = adapter.facts.get("architecture") or adapter.metadata.get("modelspec.architecture", "").removesuffix("/lora")
    return str(said)


def _name_file(folder: Path, stem: str, name: str) -> Path:
    ending = {MERGED_FILE: f"-merged{SUFFIX}", MERGED_FOLDER: "-merged"}.get(name, f"-{name}{SUFFIX}")
    return folder / f"{stem}{ending}"


def _check_file(out: Path) -> None:
    if out.suffix != SUFFIX:
        raise ConfigError("An adapter is one file.", got=f"--out {out}", expected=f"a name ending in {SUFFIX}", fix="correct --out")
