"""Adapters added up, into one adapter or into their model."""

from __future__ import annotations

import math
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path

from weber.adapters.blocks import read_strengths, split_by_strength
from weber.adapters.files import AdapterFile, load_adapter
from weber.adapters.lycoris_files import is_lycoris, load_lycoris
from weber.adapters.lycoris_merge import build_changed_weights
from weber.adapters.merge import Weighted, build_merged_adapter, build_merged_weights
from weber.errors import AdapterError, ConfigError
from weber.progress import Progress
from weber.results.bases import find_architecture, find_pairings, open_base
from weber.results.files import Named, save_layout, save_merged, save_whole
from weber.results.formats import DIFFUSERS, check_named_layout
from weber.results.runs import find_adapter
from weber.results.targets import MERGED, check_file, check_model, list_places


def merge(
    adapters: Sequence[tuple[Path, float]],
    *,
    base: str | None,
    out: Path,
    layout: str | None,
    rank: int | None,
    progress: Progress,
    blocks: str | None = None,
) -> list[str]:
    """Add adapters up, each with its weight: into one adapter file, or with `base` into a whole model. `blocks`: strengths of single
    blocks of all of them, on top.

    Returns what is to be known of the files: what they leave open, and what of them was left out.
    """
    if not adapters:
        fix = "weber merge one.safetensors:0.8 two.safetensors --out both.safetensors"
        raise ConfigError("There is nothing to merge.", got="no adapter", fix=fix)
    adapters = [(find_adapter(path) if path.is_dir() else path, weight) for path, weight in adapters]
    inputs = [path for path, _ in adapters]
    if base is None:
        check_file(out, inputs)
        if rank is not None and rank < 1:
            raise ConfigError("A rank is 1 or more.", got=f"--rank {rank}", fix="leave it out to add the ranks up")
    else:
        check_model(out, [*inputs, *list_places(base)])
        if layout is not None or rank is not None:
            raise ConfigError("A whole model has no rank and no adapter layout.", got="--base with --layout or --rank", fix="remove them")
    if any(map(is_lycoris, inputs)):
        if base is None or len(inputs) > 1:
            raise ConfigError(
                "A file of LyCORIS is merged into its model, alone.",
                got=", ".join(map(str, inputs)) + ("" if base is None else f" with --base {base}"),
                fix="merge it with --base, and others into the result",
            )
        return merge_lycoris(inputs[0], adapters[0][1], base=base, out=out, progress=progress, blocks=blocks)
    loaded = [(load_adapter(path), weight) for path, weight in adapters]
    grouped = [_split_by_blocks(adapter, weight, blocks) for adapter, weight in loaded]
    parts = [part for several in grouped for part in several]
    architecture = find_architecture(loaded[0][0])
    facts: dict[str, object] = {MERGED: [f"{path.absolute().parent.name}/{path.name}:{weight:g}" for path, weight in adapters]}
    facts |= {} if blocks is None else {"blocks": blocks}
    notes = [f"{path}: {note}" for path, (adapter, _) in zip(inputs, loaded, strict=True) for note in adapter.notes]
    if base is not None:
        model = open_base(inputs[0], base, architecture=architecture)
        for path, several in zip(inputs, grouped, strict=True):
            with _naming(path):
                build_merged_weights(model.weights, several)
        save_merged(out, model, parts=parts, facts=facts, progress=progress)
        return notes
    pairings = find_pairings(*(adapter for adapter, _ in loaded))
    check_named_layout(layout or DIFFUSERS, [name for modules, _ in parts for name in modules], pairings=pairings)
    merged = Named(build_merged_adapter(parts, rank=rank), {"architecture": architecture, **facts}, out.stem)
    save_layout(out, merged, layout=layout or DIFFUSERS, architecture=architecture, pairings=pairings)
    return notes


def _split_by_blocks(adapter: AdapterFile, weight: float, blocks: str | None) -> list[Weighted]:
    """An adapter as several, each with the layers that have one strength."""
    if blocks is None:
        return [(adapter.modules, weight)]
    strengths = read_strengths(blocks, adapter.modules, pairings=find_pairings(adapter))
    groups = split_by_strength(adapter.modules, strengths)
    return [({name: one for name, one in adapter.modules.items() if name in names}, weight * own) for own, names in groups.items()]


def merge_lycoris(
    path: Path, weight: float, *, base: str | None, out: Path, progress: Progress, blocks: str | None = None
) -> list[str]:
    """Write a model with a file of LyCORIS in its weights, that of its run without `base`; returns what is to be known of the file."""
    adapter = load_lycoris(path)
    model = open_base(path, base, architecture=find_architecture(adapter))
    facts: dict[str, object] = {MERGED: [f"{path.absolute().parent.name}/{path.name}:{weight:g}"]}
    facts |= {} if blocks is None else {"blocks": blocks}
    with _naming(path):
        weights = dict(model.weights)
        layers = [*adapter.changes, *(module for one in adapter.fused.values() for module in one.match.modules)]
        strengths = {} if blocks is None else read_strengths(blocks, layers, pairings=find_pairings(adapter))
        for own, names in split_by_strength(layers, strengths).items():
            changes = {name: one for name, one in adapter.changes.items() if name in names}
            fused = {name: one for name, one in adapter.fused.items() if one.match.modules[0] in names}
            weights = build_changed_weights(weights, changes, fused=fused, strength=weight * own)
    merged = replace(model, weights=weights)
    save_whole(out, merged, facts=facts, progress=progress)
    return [f"{path}: {note}" for note in adapter.notes]


@contextmanager
def _naming(path: Path) -> Iterator[None]:
    """Of several adapters, say which one does not fit."""
    try:
        yield
    except AdapterError as error:
        raise AdapterError(error.what, got=f"{path}: {error.got}", expected=error.expected, fix=error.fix) from error


def read_weighted(text: str) -> tuple[Path, float]:
    """`file:0.8` as (file, 0.8); without a number the weight is 1. Of a run folder or a checkpoint, its adapter.

    Raises ConfigError where there is no such file or number, CheckpointError where a folder has no adapter.
    """
    path, colon, number = text.rpartition(":")
    if Path(text).exists() or not (colon and Path(path).exists()):
        path, number = text, "1"
    if not Path(path).exists():
        expected = "a file or a run folder, as FILE or FILE:WEIGHT"
        raise ConfigError("There is no such adapter file.", got=text, expected=expected, fix="correct it")
    try:
        weight = float(number)
    except ValueError:
        weight = math.nan
    if not math.isfinite(weight):
        expected = "FILE:WEIGHT, such as a.safetensors:0.8"
        raise ConfigError("The weight of an adapter is no number.", got=text, expected=expected, fix="correct it")
    return find_adapter(Path(path)) if Path(path).is_dir() else Path(path), weight
