"""A LoRA with lower ranks, in the layout of its file and with what that says."""

from __future__ import annotations

import json
from collections.abc import Mapping
from pathlib import Path

from torch import Tensor

from weber.adapters.factors import Factors
from weber.adapters.files import build_hash, load_adapter, open_layers
from weber.adapters.metadata import FACTS_KEY, HASH_KEY, SETTINGS_KEY, build_settings, find_most_common, read_facts
from weber.adapters.read import FileLayer
from weber.adapters.resize import Resized, build_resized, build_tensors
from weber.errors import ConfigError
from weber.families.tensors import Entry, build_entry, open_weights, read_metadata, save_weights
from weber.progress import Progress
from weber.results.runs import find_adapter
from weber.results.targets import RESIZED, check_file

HASHES = ("sshs_model_hash", "sshs_legacy_hash")
"""Of the tensors that the file had, as other trainers write them; nobody reads them but to look for the very file."""
_RANK, _ALPHA = "ss_network_dim", "ss_network_alpha"


def resize(source: Path, *, rank: int | None, energy: float | None, out: Path, progress: Progress) -> Resized:
    """Write an adapter file, or that of a run, with at most `rank` directions in each layer, or with the share `energy` of each layer's
    change. Names of tensors, header and strength stay as they are.

    Raises ConfigError for a rank that cuts nothing, AdapterError for what is no LoRA.
    """
    if (rank is None and energy is None) or (rank is not None and rank < 1) or (energy is not None and not 0 < energy <= 1):
        raise ConfigError(
            "It is not said how much of the change is to be kept, or in a way that cannot be.",
            got=f"--rank {rank}, --energy {energy}",
            expected="--rank of 1 or more, --energy above 0 and up to 1, or both",
            fix="try --energy 0.95",
        )
    path = find_adapter(source) if source.is_dir() else source
    check_file(out, [path])
    adapter = load_adapter(path)
    layers = open_layers(path)
    resized, told = build_resized(layers, rank=rank, energy=energy, progress=progress)
    if all(one.rank == one.rank_before for one in told.cuts):
        highest = max(one.rank_before for one in told.cuts)
        asked = " ".join(f"--{name} {value}" for name, value in (("rank", rank), ("energy", energy)) if value is not None)
        raise ConfigError(
            "No layer would get a lower rank.",
            got=f"{asked}, and {path} with ranks up to {highest}",
            expected=f"--rank below {highest}" if highest > 1 else "a file with ranks above 1",
            fix="lower it" if highest > 1 else "keep the file",
        )
    before = open_weights([path])
    tensors = _build_entries(before, build_tensors(layers, resized))
    facts = read_facts(adapter.metadata) | {RESIZED: f"{path.absolute().parent.name}/{path.name}"}
    metadata = _build_metadata(read_metadata(path), layers, resized) | {FACTS_KEY: json.dumps(facts, sort_keys=True)}
    if HASH_KEY in metadata:
        metadata |= {HASH_KEY: "0x" + build_hash({name: entry.read().contiguous() for name, entry in tensors.items()})}
    save_weights(out, tensors, metadata=metadata)
    return told


def _build_entries(before: Mapping[str, Entry], tensors: Mapping[str, Tensor]) -> dict[str, Entry]:
    """All tensors of the file, in its order; an alpha has the shape that it had."""
    entries = {}
    for name, entry in before.items():
        tensor = tensors.get(name)
        entries[name] = entry if tensor is None else build_entry(tensor if tensor.dim() else tensor.reshape(entry.shape))
    return entries


def _build_metadata(metadata: Mapping[str, str], layers: Mapping[str, FileLayer], resized: Mapping[str, Factors]) -> dict[str, str]:
    """What the header says, with the new ranks and alphas where it says any."""
    header = {key: text for key, text in metadata.items() if key not in HASHES and key != "format"}
    header |= {_RANK: str(find_most_common(one.rank for one in resized.values()))} if _RANK in header else {}
    header |= {_ALPHA: str(find_most_common(one.alpha for one in resized.values()))} if _ALPHA in header else {}
    has_tensors = all("alpha" in layer.names for layer in layers.values())
    needs_settings = SETTINGS_KEY in header or not has_tensors and any(one.alpha != one.rank for one in resized.values())
    if needs_settings:
        header[SETTINGS_KEY] = build_settings({layer.module: resized[stem] for stem, layer in layers.items()})
    return header
