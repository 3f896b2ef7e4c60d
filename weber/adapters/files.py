"""Adapter files: read in any layout, written in three, whole or not at all."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import torch
from torch import Tensor

from weber.adapters.factors import Factors
from weber.adapters.layouts import check_layout, find_layout
from weber.adapters.metadata import FACTS_KEY, HASH_KEY, SETTINGS_KEY, VERSION_KEY, read_facts
from weber.adapters.precision import build_rounded
from weber.adapters.read import FileLayer, read_layers, read_modules
from weber.errors import AdapterError, ModelError
from weber.families.pairing import Pairing
from weber.families.tensors import build_entry, open_weights, read_metadata, save_weights


@dataclass(frozen=True)
class AdapterFile:
    """An adapter from a file; `modules` have the names of the library's model.

    `layout` says who names tensors so, `classes` which of the library's models have all of these layers, `notes` what was assumed because
    the file does not say it. `facts` are ours, `metadata` is the whole text of the header.
    """

    layout: str
    modules: dict[str, Factors]
    facts: dict[str, object]
    metadata: dict[str, str]
    classes: tuple[str, ...] = ()
    notes: tuple[str, ...] = ()

    @property
    def num_layers(self) -> int:
        """Layers of the library's model that it changes."""
        return len(self.modules)


def load_adapter(path: Path) -> AdapterFile:
    """Read an adapter in any layout. Raises AdapterError where it is missing, damaged, or no LoRA of a transformer."""
    if not path.is_file():
        raise AdapterError("There is no adapter file.", got=str(path), fix="give a *.safetensors file that a run has saved")
    try:
        weights, metadata = open_weights([path]), read_metadata(path)
        reading = read_modules(weights, _read_settings_beside(path) | metadata)
    except (ModelError, AdapterError) as error:
        got = error.got if str(path) in error.what else f"{path}: {error.got}"
        raise AdapterError(error.what, got=got, expected=error.expected, fix=error.fix) from error
    return AdapterFile(reading.layout, reading.modules, read_facts(metadata), metadata, reading.classes, reading.notes)


def save_adapter(
    path: Path,
    modules: Mapping[str, Factors],
    *,
    layout: str,
    facts: Mapping[str, object],
    metadata: Mapping[str, str],
    pairings: Sequence[Pairing],
    precision: str | None = None,
) -> None:
    """Write an adapter to `path`, whole or not at all. The same input gives the same bytes.

    The scale is in the factors, in every layout, and alpha is the rank: not all readers of a layout read its alpha. `metadata` is for
    other programs (`metadata.build_metadata`). `precision`: that of the file, as `output.precision`; None: as it is. Raises AdapterError
    where the layout cannot carry the adapter.
    """
    if not modules:
        raise AdapterError("There is nothing to save.", got="an adapter without layers", fix="check the targets")
    check_layout(modules, layout=layout, pairings=pairings)
    tensors, settings = find_layout(layout).write({name: one.build_baked() for name, one in modules.items()}, pairings)
    tensors = build_rounded({name: tensors[name].detach().cpu().contiguous() for name in sorted(tensors)}, precision)
    header = dict(metadata) | {FACTS_KEY: json.dumps(facts, sort_keys=True)} | settings
    if VERSION_KEY in header:
        header |= {HASH_KEY: "0x" + build_hash(tensors)}
    save_weights(path, {name: build_entry(tensor) for name, tensor in tensors.items()}, metadata=header)


def open_layers(path: Path) -> dict[str, FileLayer]:
    """The layers of a file that `load_adapter` reads, by the file's own names: layers that its writer has as one are one."""
    return read_layers(open_weights([path]), _read_settings_beside(path) | read_metadata(path))


def build_hash(tensors: Mapping[str, Tensor]) -> str:
    """Hash of a file's bytes after its header, whose tensors are in this order."""
    digest = hashlib.sha256()
    for tensor in tensors.values():
        digest.update(tensor.reshape(-1).view(torch.uint8).numpy().data)
    return digest.hexdigest()


def _read_settings_beside(path: Path) -> dict[str, str]:
    """PEFT itself writes its settings into a file beside the adapter."""
    beside = path.with_name("adapter_config.json")
    if path.name != "adapter_model.safetensors" or not beside.is_file():
        return {}
    return {SETTINGS_KEY: beside.read_text(encoding="utf-8", errors="replace")}
