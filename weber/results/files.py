"""Results as files: adapters in every layout, and whole models."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path

from weber.adapters.factors import Factors
from weber.adapters.files import save_adapter
from weber.adapters.layouts import LAYOUTS
from weber.adapters.merge import Weighted, build_merged_weights
from weber.adapters.metadata import FACTS_KEY, build_metadata, read_facts
from weber.adapters.model import save_model_file, save_model_folder
from weber.errors import ModelError
from weber.families.pairing import Pairing
from weber.families.tensors import Weights, read_metadata
from weber.progress import Progress
from weber.results.formats import build_format_path
from weber.results.runs import MODEL_FOLDER, SUFFIX


@dataclass(frozen=True)
class Model:
    """A whole transformer as files."""

    weights: Weights
    config: Mapping[str, object]
    pairings: Sequence[Pairing]
    architecture: str


@dataclass(frozen=True)
class Named:
    """An adapter with what its files are to say of it, and their precision, if it is not that of the adapter."""

    modules: Mapping[str, Factors]
    facts: Mapping[str, object]
    title: str
    precision: str | None = None


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


def save_layout(path: Path, adapter: Named, *, layout: str, architecture: str, pairings: Sequence[Pairing]) -> None:
    """Write an adapter file with everything that other programs show of it."""
    modules = {name: one.build_baked() for name, one in adapter.modules.items()}
    facts = build_precise_facts(adapter.facts, adapter.precision)
    metadata = build_metadata(modules, architecture=architecture, title=adapter.title, facts=facts)
    save_adapter(path, modules, layout=layout, facts=facts, metadata=metadata, pairings=pairings, precision=adapter.precision)


def build_precise_facts(facts: Mapping[str, object], precision: str | None) -> dict[str, object]:
    """The facts of a file, with its precision, if that was asked for."""
    return dict(facts) if precision is None else {**facts, "precision": precision}


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


def read_model_facts(path: Path) -> dict[str, object]:
    """The facts of a file, or of a folder of files; none where it cannot be read."""
    files = [path] if path.is_file() else sorted(path.glob(f"*{SUFFIX}"))
    try:
        return read_facts(read_metadata(files[0])) if files else {}
    except ModelError:
        return {}
