"""From files to files: adapters in other layouts, adapters added up, merged into their model, or taken out of a fine-tune."""

from __future__ import annotations

import difflib
import json
import math
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path

from weber.adapters.extract import Extraction, build_extraction
from weber.adapters.factors import Factors
from weber.adapters.files import AdapterFile, load_adapter, save_adapter
from weber.adapters.full import build_whole_weights
from weber.adapters.layouts import LAYOUTS, check_layout
from weber.adapters.lycoris_files import build_changed_weights, is_lycoris, load_lycoris
from weber.adapters.merge import Weighted, build_merged_adapter, build_merged_weights, check_base
from weber.adapters.metadata import FACTS_KEY, build_metadata, read_facts
from weber.adapters.model import save_model_file, save_model_folder
from weber.config.model import ModelConfig
from weber.errors import AdapterError, ConfigError, ModelError
from weber.families.pairing import Pairing
from weber.families.pattern import is_any
from weber.families.table import FAMILIES, open_transformer
from weber.families.tensors import Weights, open_weights, read_metadata
from weber.progress import Progress
from weber.training.checks import DIFFUSERS, MERGED_FILE, MERGED_FOLDER, check_formats
from weber.training.runs import (
    ADAPTER_NAME,
    EMA_NAME,
    MODEL_FOLDER,
    MODEL_NAME,
    TRAINED_NAME,
    find_adapter,
    find_config,
    find_run,
)

SUFFIX = ".safetensors"
MERGED, EXTRACTED = "merged", "extracted"
"""Facts of files that can be made again, and so may be replaced."""
FULL = "full"
"""The fact `kind` of a model whose own weights were trained."""
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
        path = build_format_path(folder / stem, name)
        if name in LAYOUTS:
            save_layout(path, adapter, layout=name, architecture=model.architecture, pairings=model.pairings)
        else:
            save_merged(path, model, parts=[(adapter.modules, 1.0)], facts=adapter.facts, progress=progress)
        written.append(path)
    return written


def build_format_path(path: Path, name: str) -> Path:
    """Where an adapter, or a model with it, goes in a format, beside `path`, which has no ending."""
    ending = {MERGED_FILE: f"-merged{SUFFIX}", MERGED_FOLDER: "-merged"}.get(name, f"-{name}{SUFFIX}")
    return path.with_name(path.name + ending)


def list_models(formats: Sequence[str], folder: Path) -> list[Path]:
    """Where a whole model that was trained goes, in formats of such."""
    names = {DIFFUSERS: MODEL_FOLDER, MERGED_FOLDER: MODEL_FOLDER, MERGED_FILE: MODEL_NAME}
    return [folder / name for name in dict.fromkeys(names[one] for one in formats)]


def check_model_formats(formats: Sequence[str], *, key: str) -> None:
    """Refuse layouts of adapters where the weights of a model themselves are trained; needs no weights."""
    layouts = [name for name in formats if name in LAYOUTS and name != DIFFUSERS]
    if layouts:
        raise ConfigError(
            "A whole model has no adapter layout.",
            got=f"{key} = {', '.join(layouts)}, and the weights of the model themselves are trained",
            expected=f"{MERGED_FOLDER} (or {DIFFUSERS}), {MERGED_FILE}",
            fix=f'use {MERGED_FILE}, one file with the names that ComfyUI reads; or train a LoRA (adapter.kind = "lora")',
        )
    check_formats(formats, [], pairings=(), key=key)


def export(source: Path, formats: Sequence[str], *, base: str | None, out: Path | None, progress: Progress) -> list[Path]:
    """Write what a run has learned, or an adapter file of any layout, in other formats.

    Raises ConfigError or AdapterError before anything is written.
    """
    if _is_full(source):
        return _export_model(source, formats, base=base, out=out, progress=progress)
    path = find_adapter(source) if source.is_dir() else source
    if is_lycoris(path):
        return _export_lycoris(path, formats, base=base, folder=out or path.parent, progress=progress)
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


def _export_lycoris(path: Path, formats: Sequence[str], *, base: str | None, folder: Path, progress: Progress) -> list[Path]:
    """Write a model with a file of LyCORIS in its weights; it has no other layout."""
    layouts = [name for name in formats if name not in (MERGED_FILE, MERGED_FOLDER)]
    if layouts or not formats:
        raise ConfigError(
            "A file of LyCORIS has no other layout.",
            got=f"--format {', '.join(layouts) or 'nothing'} of {path}",
            expected=f"{MERGED_FOLDER}, {MERGED_FILE}",
            fix="choose of these; ComfyUI and LyCORIS read the file as it is",
        )
    written = []
    for name in dict.fromkeys(formats):
        target = folder / f"{path.stem}-merged{SUFFIX if name == MERGED_FILE else ''}"
        _merge_lycoris(path, 1.0, base=_find_base(path, base), out=target, progress=progress)
        written.append(target)
    return written


def _merge_lycoris(path: Path, weight: float, *, base: ModelConfig, out: Path, progress: Progress) -> None:
    adapter = load_lycoris(path)
    model = _open_model(base, architecture=_find_architecture(adapter))
    facts = {MERGED: [f"{path.absolute().parent.name}/{path.name}:{weight:g}"]}
    merged = replace(model, weights=build_changed_weights(model.weights, adapter.changes, strength=weight))
    save_model(out if out.suffix == SUFFIX else out / MODEL_FOLDER, merged, facts=facts, progress=progress)


def _export_model(source: Path, formats: Sequence[str], *, base: str | None, out: Path | None, progress: Progress) -> list[Path]:
    """Write the model that a run has trained in other formats: the finished one, or a checkpoint's tensors in their base."""
    check_model_formats(formats, key="--format")
    is_whole = source.name not in (TRAINED_NAME, EMA_NAME) if source.is_file() else (source / "config.json").is_file()
    saved = None if is_whole else find_run(source, weights="trained")
    path = source if saved is None else saved.path
    if saved is None or path.name != TRAINED_NAME:
        if base is not None:
            raise ConfigError("A whole model needs no base, so --base has no effect.", got=f"--base {base}", fix="remove --base")
        model = _open_model(ModelConfig(path=str(path)), architecture="")
    else:
        opened = _open_model(_find_base(path, base), architecture="")
        tensors = open_weights([path] if saved.ema is None else [path, saved.ema])
        model = replace(opened, weights=build_whole_weights(opened.weights, tensors))
    facts, folder = _read_model_facts(path), out or path.parent
    written = list_models(formats, folder)
    for target in written:
        _check_target(target, inputs=[path])
    model = replace(model, architecture=str(facts.get("architecture") or ""))
    for target in written:
        save_model(target, model, facts=facts, progress=progress)
    return written


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
    if any(map(is_lycoris, inputs)):
        if base is None or len(inputs) > 1:
            raise ConfigError(
                "A file of LyCORIS is merged into its model, alone.",
                got=", ".join(map(str, inputs)) + ("" if base is None else f" with --base {base}"),
                fix="merge it with --base, and others into the result",
            )
        _merge_lycoris(inputs[0], adapters[0][1], base=read_base(base), out=out, progress=progress)
        return
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
    modules = [name for name in linears if is_any(name, patterns)]
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
    """Write a whole transformer with adapters in it; see `save_whole`."""
    save_whole(path, replace(model, weights=build_merged_weights(model.weights, parts)), facts=facts, progress=progress)


def save_whole(path: Path, model: Model, *, facts: Mapping[str, object], progress: Progress) -> None:
    """Write a whole transformer: one file if `path` ends as one, else a folder with a subfolder for it."""
    save_model(path if path.suffix == SUFFIX else path / MODEL_FOLDER, model, facts=facts, progress=progress)


def save_model(path: Path, model: Model, *, facts: Mapping[str, object], progress: Progress) -> None:
    """Write a whole transformer: one file with the makers' names if `path` ends as one, else a folder in the library's layout."""
    metadata = {FACTS_KEY: json.dumps(facts, sort_keys=True)}
    metadata |= {"modelspec.architecture": model.architecture} if model.architecture else {}
    if path.suffix == SUFFIX:
        save_model_file(path, model.weights, pairings=model.pairings, config=model.config, metadata=metadata, progress=progress)
    else:
        save_model_folder(path, model.weights, config=model.config, metadata=metadata, progress=progress)


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


def _is_full(source: Path) -> bool:
    """Whether a run folder, a checkpoint, a file or a model's folder holds weights of a model itself that were trained."""
    if source.is_file() or (source / "config.json").is_file():
        return _read_model_facts(source).get("kind") == FULL
    run = find_config(source)
    return run is not None and run.adapter.kind == FULL


def _read_model_facts(path: Path) -> dict[str, object]:
    """The facts of a file, or of a folder of files; none where it cannot be read."""
    files = [path] if path.is_file() else sorted(path.glob(f"*{SUFFIX}"))
    try:
        return read_facts(read_metadata(files[0])) if files else {}
    except ModelError:
        return {}


def _check_out(out: Path, *, inputs: Sequence[Path], is_folder: bool) -> None:
    """Refuse a target that is, holds or lies in what is read, or that holds anything but an earlier result."""
    _check_target(out / MODEL_FOLDER if is_folder else out, inputs=inputs)


def _check_target(path: Path, *, inputs: Sequence[Path]) -> None:
    target = path.absolute().resolve()
    is_folder = path.suffix != SUFFIX
    for one in (place.expanduser().absolute().resolve() for place in inputs):
        if target == one or (one.is_dir() and target.is_relative_to(one)) or (is_folder and one.is_relative_to(target)):
            raise ConfigError("The result would replace what it is made from.", got=f"--out {path}", fix="choose another --out")
    check_replaced(target, key="--out")


def check_replaced(target: Path, *, key: str) -> None:
    """Refuse to write over anything but an earlier result."""
    files = sorted(target.glob(f"*{SUFFIX}")) if target.is_dir() else [target] if target.exists() else []
    if target.exists() and not (files and all(_is_result(file) for file in files)):
        raise ConfigError(
            "The result would replace something that was not trained, merged or extracted.",
            got=f"{key} {target}",
            fix=f"choose another {key}",
        )


def _is_result(file: Path) -> bool:
    facts = _read_model_facts(file)
    return MERGED in facts or EXTRACTED in facts or facts.get("kind") == FULL


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
