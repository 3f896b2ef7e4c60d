"""From files to files: adapters in other layouts, adapters added up, merged into their model, or taken out of a fine-tune."""

from __future__ import annotations

import difflib
import json
import math
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from weber.adapters.extract import Extraction, build_extraction
from weber.adapters.factors import Factors
from weber.adapters.files import AdapterFile, load_adapter, save_adapter
from weber.adapters.layouts import LAYOUTS, check_layout
from weber.adapters.merge import Weighted, build_merged_adapter, build_merged_weights, check_base
from weber.adapters.metadata import FACTS_KEY, build_metadata, read_facts
from weber.adapters.model import save_model_file, save_model_folder
from weber.adapters.target import is_target
from weber.config.model import ModelConfig
from weber.errors import AdapterError, ConfigError, ModelError
from weber.families.pairing import Pairing
from weber.families.table import FAMILIES, open_transformer
from weber.families.tensors import Weights, read_metadata
from weber.progress import Progress
from weber.training.checks import DIFFUSERS, MERGED_FILE, MERGED_FOLDER, check_formats
from weber.training.runs import ADAPTER_NAME, find_adapter, find_config

SUFFIX = ".safetensors"
MERGED, EXTRACTED = "merged", "extracted"
"""Facts of files that can be made again, and so may be replaced."""
_NO_FOLDERS = {".ckpt", ".pt", ".pth", ".bin", ".txt", ".json", ".gguf", ".toml", ".png"}


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


def write_formats(adapter: Named, formats: Sequence[str], *, model: Model, folder: Path, stem: str, progress: Progress) -> list[Path]:
    """Write an adapter in other formats beside each other; returns the files and folders."""
    written = []
    for name in formats:
        ending = {MERGED_FILE: f"-merged{SUFFIX}", MERGED_FOLDER: "-merged"}.get(name, f"-{name}{SUFFIX}")
        path = folder / f"{stem}{ending}"
        if name in LAYOUTS:
            save_layout(path, adapter, layout=name, architecture=model.architecture, pairings=model.pairings)
        else:
            save_merged(path, model, parts=[(adapter.modules, 1.0)], facts=adapter.facts, progress=progress)
        written.append(path)
    return written


def export(source: Path, formats: Sequence[str], *, base: str | None, out: Path | None, progress: Progress) -> list[Path]:
    """Write the adapter of a run folder, or an adapter file of any layout, in other formats.

    Raises ConfigError or AdapterError before anything is written.
    """
    path = find_adapter(source) if source.is_dir() else source
    adapter = load_adapter(path)
    pairings, architecture = _find_pairings(adapter), _find_architecture(adapter)
    check_formats(formats, adapter.modules, pairings=pairings, key="--format")
    model = Model({}, {}, pairings, architecture)
    if set(formats) <= set(LAYOUTS) and base is not None:
        raise ConfigError("No model is merged into, so --base has no effect.", got=f"--base {base}", fix="remove --base")
    if not set(formats) <= set(LAYOUTS):
        model = _open_model(_find_base(path, base), architecture=architecture)
        check_base(model.weights, list(adapter.modules))
    named = Named(adapter.modules, adapter.facts, path.parent.name if path.name == ADAPTER_NAME else path.stem)
    return write_formats(named, formats, model=model, folder=out or path.parent, stem=path.stem, progress=progress)


def merge(
    adapters: Sequence[tuple[Path, float]], *, base: str | None, out: Path, layout: str | None, rank: int | None, progress: Progress
) -> None:
    """Add adapters up, each with its weight: into one adapter file, or with `base` into a whole model."""
    if not adapters:
        fix = "weber merge one.safetensors:0.8 two.safetensors --out both.safetensors"
        raise ConfigError("There is nothing to merge.", got="no adapter", fix=fix)
    inputs = [path for path, _ in adapters]
    if base is None:
        _check_file(out, inputs)
        if rank is not None and rank < 1:
            raise ConfigError("A rank is 1 or more.", got=f"--rank {rank}", fix="leave it out to add the ranks up")
    else:
        _check_model(out, [*inputs, *_list_places(base)])
        if layout is not None or rank is not None:
            raise ConfigError("A whole model has no rank and no adapter layout.", got="--base with --layout or --rank", fix="remove them")
    loaded = [(load_adapter(path), weight) for path, weight in adapters]
    parts: list[Weighted] = [(adapter.modules, weight) for adapter, weight in loaded]
    architecture = _find_architecture(loaded[0][0])
    facts = {MERGED: [f"{path.absolute().parent.name}/{path.name}:{weight:g}" for path, weight in adapters]}
    if base is not None:
        save_merged(out, _open_model(read_base(base), architecture=architecture), parts=parts, facts=facts, progress=progress)
        return
    pairings = _find_pairings(*(adapter for adapter, _ in loaded))
    _check_layout(layout or DIFFUSERS, [name for modules, _ in parts for name in modules], pairings=pairings)
    merged = Named(build_merged_adapter(parts, rank=rank), {"architecture": architecture, **facts}, out.stem)
    save_layout(out, merged, layout=layout or DIFFUSERS, architecture=architecture, pairings=pairings)


def extract(
    tuned: str, *, base: str, targets: str, rank: int | None, energy: float | None, out: Path, layout: str, progress: Progress
) -> Extraction:
    """Write the LoRA that turns one model into another, on the layers that a target set or a pattern means."""
    _check_file(out, _list_places(tuned, base))
    if (rank is None and energy is None) or (rank is not None and rank < 1) or (energy is not None and not 0 < energy <= 1):
        raise ConfigError(
            "It is not said how much of the change is to be kept, or in a way that cannot be.",
            got=f"--rank {rank}, --energy {energy}",
            expected="--rank of 1 or more, --energy above 0 and up to 1, or both",
            fix="try --rank 64",
        )
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
    _check_layout(layout, modules, pairings=before.row.pairings)
    extraction = build_extraction(before.weights, after.weights, modules=modules, rank=rank, energy=energy, progress=progress)
    named = Named(extraction.modules, {EXTRACTED: Path(tuned).name, "model": Path(base).name}, out.stem)
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
    """A model in one word: a variant's name, a folder, a hub id or a single file. Raises ConfigError for what is none of them."""
    names = [name for row in FAMILIES for name in row.variants]
    if text in names:
        return ModelConfig(variant=text)
    if "/" not in text and not Path(text).exists():
        near = difflib.get_close_matches(text, names, n=1, cutoff=0.4)
        raise ConfigError(
            "There is no such model.",
            got=text,
            expected="a variant (`weber variants`), a folder, a *.safetensors file, or a hub id such as owner/name",
            fix=f"did you mean {near[0]!r}?" if near else "correct it",
        )
    return ModelConfig(path=text)


def read_weighted(text: str) -> tuple[Path, float]:
    """`file:0.8` as (file, 0.8); without a number the weight is 1. Raises ConfigError where there is no such file or number."""
    path, colon, number = text.rpartition(":")
    if Path(text).is_file() or not (colon and Path(path).is_file()):
        path, number = text, "1"
    if not Path(path).is_file():
        raise ConfigError("There is no such adapter file.", got=text, expected="a file, as FILE or FILE:WEIGHT", fix="correct it")
    try:
        weight = float(number)
    except ValueError:
        weight = math.nan
    if not math.isfinite(weight):
        expected = "FILE:WEIGHT, such as a.safetensors:0.8"
        raise ConfigError("The weight of an adapter is no number.", got=text, expected=expected, fix="correct it")
    return Path(path), weight


def _find_base(path: Path, base: str | None) -> ModelConfig:
    """The model that was named, or that of the run whose folder (or checkpoint) the file lies in."""
    if base is not None:
        return read_base(base)
    run = find_config(path.parent)
    if run is None:
        raise ConfigError(
            "The model to merge into is not known.",
            got=f"no --base, and {path} lies in no run folder",
            fix="add --base with the model: a variant (`weber variants`), a folder, a hub id or a file",
        )
    return run.model


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


def _check_out(out: Path, *, inputs: Sequence[Path], is_folder: bool) -> None:
    """Refuse a target that is, holds or lies in what is read, or that holds anything but an earlier result."""
    target = (out / "transformer" if is_folder else out).absolute().resolve()
    for one in (path.expanduser().absolute().resolve() for path in inputs):
        if target == one or (one.is_dir() and target.is_relative_to(one)) or (is_folder and one.is_relative_to(target)):
            raise ConfigError("The result would replace what it is made from.", got=f"--out {out}", fix="choose another --out")
    files = sorted(target.glob(f"*{SUFFIX}")) if is_folder else [target] if target.exists() else []
    if target.exists() and not (files and all(_is_result(file) for file in files)):
        raise ConfigError("The result would replace something that was not merged or extracted.", got=f"--out {out}", fix="choose another")


def _is_result(file: Path) -> bool:
    try:
        facts = read_facts(read_metadata(file))
    except ModelError:
        return False
    return MERGED in facts or EXTRACTED in facts


def _check_model(out: Path, inputs: Sequence[Path]) -> None:
    if out.suffix in _NO_FOLDERS:
        fix = f"end the name in {SUFFIX}, or give a folder"
        raise ConfigError("A model is a *.safetensors file or a folder.", got=f"--out {out}", fix=fix)
    _check_out(out, inputs=inputs, is_folder=out.suffix != SUFFIX)


def _check_file(out: Path, inputs: Sequence[Path]) -> None:
    if out.suffix != SUFFIX:
        raise ConfigError("An adapter is one file.", got=f"--out {out}", expected=f"a name ending in {SUFFIX}", fix="correct --out")
    _check_out(out, inputs=inputs, is_folder=False)


def _check_layout(layout: str, modules: Iterable[str], *, pairings: Sequence[Pairing]) -> None:
    if layout not in LAYOUTS:
        raise ConfigError("There is no such layout.", got=f"--layout {layout}", expected=", ".join(LAYOUTS), fix="choose one of these")
    check_layout(list(modules), layout=layout, pairings=pairings)


def _list_places(*texts: str) -> list[Path]:
    """Those that are on this machine."""
    return [Path(text).expanduser() for text in texts if Path(text).expanduser().exists()]
