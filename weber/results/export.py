"""What a run has learned, or an adapter file, in other formats."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from dataclasses import replace
from pathlib import Path

from weber.adapters.files import load_adapter
from weber.adapters.full import build_whole_weights
from weber.adapters.layouts import LAYOUTS
from weber.adapters.lycoris_files import is_lycoris
from weber.adapters.merge import check_base
from weber.errors import ConfigError
from weber.families.tensors import open_weights
from weber.progress import Progress
from weber.results.bases import find_architecture, find_pairings, open_base, open_whole
from weber.results.files import Model, Named, read_model_facts, save_model, write_formats
from weber.results.formats import MERGED_FILE, MERGED_FOLDER, build_format_path, check_formats, check_model_formats, list_models
from weber.results.merge import merge_lycoris
from weber.results.runs import (
    ADAPTER_NAME,
    EMA_NAME,
    TRAINED_NAME,
    choose_target,
    find_adapter,
    find_config,
    find_home,
    find_run,
)
from weber.results.targets import FULL, check_target

Note = Callable[[str], None]
"""Takes what is to be known of a file."""


def _ignore_note(note: str) -> None:
    """For those who do not want to know."""


def export(
    source: Path, formats: Sequence[str], *, base: str | None, out: Path | None, progress: Progress, note: Note = _ignore_note
) -> list[Path]:
    """Write what a run has learned, or an adapter file of any layout, in other formats.

    `note` is told what the file leaves open, and what of it was left out.

    Raises ConfigError or AdapterError before anything is written.
    """
    if out is not None and out.is_file():
        raise ConfigError("The results go into a folder, and this is a file.", got=f"--out {out}", fix="give a folder")
    if _is_full(source):
        return _export_model(source, formats, base=base, out=out, progress=progress)
    path = find_adapter(source) if source.is_dir() else source
    folder, ending = choose_target(path, out)
    target = folder / (path.stem + ending)
    if is_lycoris(path):
        return _export_lycoris(path, formats, base=base, target=target, progress=progress, note=note)
    adapter = load_adapter(path)
    pairings, architecture = find_pairings(adapter), find_architecture(adapter)
    check_formats(formats, adapter.modules, pairings=pairings, key="--format")
    model = Model({}, {}, pairings, architecture)
    if set(formats) <= set(LAYOUTS) and base is not None:
        raise ConfigError("No model is merged into, so --base has no effect.", got=f"--base {base}", fix="remove --base")
    if not set(formats) <= set(LAYOUTS):
        model = open_base(path, base, architecture=architecture)
        check_base(model.weights, list(adapter.modules))
    named = Named(adapter.modules, adapter.facts, _build_title(path))
    written = write_formats(named, formats, model=model, folder=target.parent, stem=target.name, progress=progress)
    _tell(note, [f"{path}: {one}" for one in adapter.notes])
    return written


def _tell(note: Note, texts: Iterable[str]) -> None:
    """Each once."""
    for text in dict.fromkeys(texts):
        note(text)


def _build_title(path: Path) -> str:
    """What files say that they are called: of an adapter without a name of its own, the run's."""
    home = find_home(path)
    named = path.parent.name if home is None else home.folder.name + home.ending
    return named if path.name == ADAPTER_NAME else path.stem


def _export_lycoris(
    path: Path, formats: Sequence[str], *, base: str | None, target: Path, progress: Progress, note: Note
) -> list[Path]:
    """Write a model with a file of LyCORIS in its weights; it has no other layout."""
    layouts = [name for name in formats if name not in (MERGED_FILE, MERGED_FOLDER)]
    if layouts or not formats:
        raise ConfigError(
            "A file of LyCORIS has no other layout.",
            got=f"--format {', '.join(layouts) or 'nothing'} of {path}",
            expected=f"{MERGED_FOLDER}, {MERGED_FILE}",
            fix="choose of these; ComfyUI and LyCORIS read the file as it is",
        )
    written, notes = [], []
    for name in dict.fromkeys(formats):
        merged = build_format_path(target, name)
        notes += merge_lycoris(path, 1.0, base=base, out=merged, progress=progress)
        written.append(merged)
    _tell(note, notes)
    return written


def _export_model(source: Path, formats: Sequence[str], *, base: str | None, out: Path | None, progress: Progress) -> list[Path]:
    """Write the model that a run has trained in other formats: the finished one, or a checkpoint's tensors in their base."""
    check_model_formats(formats, key="--format")
    is_whole = source.name not in (TRAINED_NAME, EMA_NAME) if source.is_file() else (source / "config.json").is_file()
    saved = None if is_whole else find_run(source, weights="trained")
    path = source if saved is None else saved.path
    if saved is None or path.name != TRAINED_NAME:
        if base is not None:
            raise ConfigError("A whole model needs no base, so --base has no effect.", got=f"--base {base}", fix="remove --base")
        model = open_whole(path)
    else:
        opened = open_base(path, base, architecture="")
        tensors = open_weights([path] if saved.ema is None else [path, saved.ema])
        model = replace(opened, weights=build_whole_weights(opened.weights, tensors))
    facts, (folder, ending) = read_model_facts(path), choose_target(path, out)
    written = list_models(formats, folder, ending=ending)
    for target in written:
        check_target(target, inputs=[path])
    model = replace(model, architecture=str(facts.get("architecture") or ""))
    for target in written:
        save_model(target, model, facts=facts, progress=progress)
    return written


def _is_full(source: Path) -> bool:
    """Whether a run folder, a checkpoint, a file or a model's folder holds weights of a model itself that were trained."""
    if source.is_file() or (source / "config.json").is_file():
        return read_model_facts(source).get("kind") == FULL
    run = find_config(source)
    return run is not None and run.adapter.kind == FULL
