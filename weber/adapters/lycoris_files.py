"""Files of LyCORIS: `lycoris_<module with _ for .>.<tensor>`, as LyCORIS itself, SimpleTuner and ComfyUI have them for these models."""

from __future__ import annotations

import json
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path

import torch
from torch import Tensor, nn

from weber.adapters.factors import Factors
from weber.adapters.files import AdapterFile
from weber.adapters.full import Parameters, load_tensors
from weber.adapters.kinds import LYCORIS, find_kind
from weber.adapters.lycoris import CHANGE, Change, list_changes
from weber.adapters.lycoris_forms import LENGTHS, WEIGHTS, build_delta, find_alpha, find_rank
from weber.adapters.merge import check_base
from weber.adapters.metadata import FACTS_KEY, build_metadata, read_facts
from weber.adapters.names import WHOLE, list_fits
from weber.adapters.precision import build_rounded
from weber.config.adapter import AdapterConfig
from weber.config.lycoris import LycorisLayer
from weber.errors import AdapterError, ModelError
from weber.families.pairing import Match
from weber.families.tensors import Entry, Weights, build_entry, open_weights, read_metadata, save_weights

PREFIX = "lycoris_"
_PREFIXES = ("transformer.", "lora_unet_", "lora_transformer_", PREFIX, "diffusion_model.", "base_model.model.")
_ALPHA = "alpha"
_MARKS = {"lokr_w1": "lokr", "lokr_w1_a": "lokr", "hada_w1_a": "loha", "lora_up": "lora", "diff": "full", "a1": "glora"}
_NUM_SHOWN = 3


@dataclass(frozen=True)
class LayerChange:
    """What a file changes of one layer."""

    algo: str
    tensors: Mapping[str, Entry]
    alpha: float

    def read(self) -> dict[str, Tensor]:
        """Its numbers in fp32, on the CPU."""
        return {name: entry.read().float().cpu() for name, entry in self.tensors.items()}

    def build_sizes(self) -> dict[str, Tensor]:
        """Its tensors without numbers."""
        return {name: torch.empty(entry.shape, device="meta") for name, entry in self.tensors.items()}

    @property
    def size(self) -> str:
        """Rank or size of blocks, for a person."""
        rank = find_rank(self.build_sizes())
        blocks = self.tensors.get("oft_blocks")
        return str(rank) if rank is not None else f"blocks of {blocks.shape[-1]}" if blocks is not None else "whole"


@dataclass(frozen=True)
class LycorisFile(AdapterFile):
    """A file of LyCORIS; `changes` have the names of the library's modules."""

    changes: dict[str, LayerChange] = field(default_factory=dict)

    @property
    def algos(self) -> Counter[str]:
        """Forms, and how many layers have each."""
        return Counter(one.algo for one in self.changes.values())


def load_lycoris(path: Path) -> LycorisFile:
    """Read a file of LyCORIS; of its tensors only the scales. Raises AdapterError where it is none, or for no model that weber knows."""
    if not path.is_file():
        raise AdapterError("There is no adapter file.", got=str(path), fix="give a *.safetensors file that a run has saved")
    try:
        weights, metadata = open_weights([path]), read_metadata(path)
    except ModelError as error:
        raise AdapterError(error.what, got=f"{path}: {error.got}", expected=error.expected, fix=error.fix) from error
    groups = _group(weights, path)
    fits = list_fits(dict.fromkeys(groups, (1, 1)))  # the names alone say which layers these are
    names = {stem: _find_module(match) for stem, match in (fits[0].matches if fits else {}).items()}
    strange = [stem for stem in groups if names.get(stem) is None]
    if strange:
        raise AdapterError(
            "The file changes layers that no model has which weber knows by the library's names.",
            got=f"{path}: {', '.join(strange[:_NUM_SHOWN])}",
            expected=f"{PREFIX} and the names of linear layers with _, such as {PREFIX}transformer_blocks_0_attn_to_q",
            fix="use it with the program that made it",
        )
    changes = {name: _build_change(stem, groups[stem], path) for stem, name in names.items() if name is not None}
    _check_finite(weights, path)
    classes = tuple(fit.family.transformer_class for fit in fits)
    return LycorisFile("lycoris", {}, read_facts(metadata), metadata, classes, (), changes)


def is_lycoris(path: Path) -> bool:
    """Whether a file is one of LyCORIS' own kinds, by the names of its tensors; a LoRA in its layout is none."""
    try:
        return path.is_file() and find_kind(open_weights([path])) in LYCORIS
    except ModelError:
        return False


def save_lycoris(
    path: Path, model: nn.Module, *, architecture: str, title: str, facts: Mapping[str, object], precision: str | None = None
) -> None:
    """Write the changes on a model, whole or not at all. The same numbers give the same bytes. `precision`: see `save_adapter`."""
    changes = list(list_changes(model))
    tensors = build_rounded({key: tensor for change in changes for key, tensor in _list_tensors(change).items()}, precision)
    sizes = [(rank, change.alpha) for change in changes if (rank := find_rank(change.tensors)) is not None] or [(0, 0.0)]
    rank, alpha = Counter(sizes).most_common(1)[0][0]
    likeness = Factors(torch.empty(rank, 1), torch.empty(1, rank), alpha)  # what headers say of a LoRA
    metadata = build_metadata({"": likeness}, architecture=architecture, title=title, facts=facts)
    metadata |= {
        "ss_network_module": "lycoris.kohya",
        "ss_network_args": json.dumps(facts.get("lycoris", {}), sort_keys=True),
        FACTS_KEY: json.dumps(facts, sort_keys=True),
    }
    save_weights(path, {name: build_entry(tensors[name]) for name in sorted(tensors)}, metadata=metadata)


def load_changes(parameters: Parameters, weights: Weights, *, where: str) -> None:
    """Write the numbers of a file into the parameters of changes. Raises AdapterError where they do not fit."""
    renamed = {name: weights[key] for name, _ in parameters if (key := _build_key(*name.split(f".{CHANGE}."))) in weights}
    load_tensors(parameters, renamed, where=where)


def load_lycoris_start(
    config: AdapterConfig, settings: Mapping[str, LycorisLayer], *, shapes: Mapping[str, tuple[int, ...]]
) -> LycorisFile | None:
    """The file that `adapter.start_from` names, which must have the tensors `shapes`, those that learn. Raises AdapterError."""
    if config.start_from is None:
        return None
    path = Path(config.start_from).expanduser()
    start = load_lycoris(path)
    have = {f"{name}.{CHANGE}.{part}": entry.shape for name, one in start.changes.items() for part, entry in one.tensors.items()}
    strange = [name for name in {**shapes, **have} if have.get(name) != shapes.get(name)]
    if strange:
        layer, _, part = strange[0].partition(f".{CHANGE}.")
        raise AdapterError(
            "The adapter to start from has other layers, another form or other sizes than the settings.",
            got=f"adapter.start_from = {path} with {list(have.get(strange[0], ())) or 'no'} {part} of {layer}",
            expected=f"{list(shapes.get(strange[0], ())) or 'none'}",
            fix="use the settings that it was made with (`weber inspect` shows them), or another file",
        )
    for name, one in start.changes.items():
        alpha = find_alpha(settings[name], one.build_sizes())
        if one.algo != "full" and one.size != "whole" and alpha != one.alpha:
            raise AdapterError(
                "The adapter to start from has another scale than the settings.",
                got=f"adapter.start_from = {path} with alpha {one.alpha:g} at {name}",
                expected=f"{alpha:g}, as set",
                fix=f"set linear_alpha (or constraint) to {one.alpha:g} in adapter.lycoris",
            )
    return start


def write_start(parameters: Parameters, start: LycorisFile) -> None:
    """Write the numbers of a file that `load_lycoris_start` has checked."""
    entries = {f"{name}.{CHANGE}.{part}": entry for name, one in start.changes.items() for part, entry in one.tensors.items()}
    load_tensors(parameters, entries, where="adapter.start_from")


def build_changed_weights(base: Weights, changes: Mapping[str, LayerChange], *, strength: float = 1.0) -> dict[str, Entry]:
    """A model's weights (under the library's names) with changes in them, in the model's precision; nothing is read yet.

    Raises AdapterError where the model lacks a layer or has it in another shape, or the weights are quantized.
    """
    check_base(base, changes)
    changed: dict[str, Entry] = dict(base)
    for name, one in changes.items():
        read = {".weight": partial(_read_weight, base[f"{name}.weight"], one, strength)}
        if "diff_b" in one.tensors:
            read[".bias"] = partial(_read_bias, base[f"{name}.bias"], one, strength)
        for ending, function in read.items():
            entry = base[name + ending]
            changed[name + ending] = Entry(entry.shape, entry.dtype, function)
    return changed


def list_layer_changes(model: nn.Module, numbers: Mapping[str, Tensor] | None = None) -> dict[str, LayerChange]:
    """What the changes on a model do, as of a file. `numbers` take the place of the parameters of that name."""
    found = {}
    for change in list_changes(model):
        tensors = {
            part: tensor.detach() if numbers is None else numbers[f"{change.name}.{CHANGE}.{part}"]
            for part, tensor in change.tensors.items()
        }
        found[change.name] = LayerChange(change.settings.algo, {part: build_entry(one) for part, one in tensors.items()}, change.alpha)
    return found


def _check_finite(weights: Weights, path: Path) -> None:
    for name, entry in weights.items():
        if not bool(entry.read().isfinite().all()):
            raise AdapterError(
                "The adapter holds numbers that are not finite: its training has failed.",
                got=f"{path}: {name}",
                fix="take an earlier checkpoint of the run that made it",
            )


def _read_weight(entry: Entry, change: LayerChange, strength: float) -> Tensor:
    weight = entry.read().float()
    delta = build_delta(change.algo, change.read(), alpha=change.alpha, weight=weight)
    if delta.shape != weight.shape:
        raise AdapterError(
            "The adapter is not for this model.",
            got=f"a change of {list(delta.shape)}",
            expected=str(list(weight.shape)),
            fix="choose the model that the adapter was trained on",
        )
    return (weight + strength * delta).to(entry.dtype)


def _read_bias(entry: Entry, change: LayerChange, strength: float) -> Tensor:
    return (entry.read().float() + strength * change.tensors["diff_b"].read().float().cpu()).to(entry.dtype)


def _list_tensors(change: Change) -> dict[str, Tensor]:
    """The tensors of a file, by their names there."""
    tensors = {_build_key(change.name, part): tensor.detach() for part, tensor in change.tensors.items()}
    if change.settings.algo != "full":
        tensors[_build_key(change.name, _ALPHA)] = torch.tensor(change.alpha)
    return tensors


def _build_key(name: str, part: str) -> str:
    return f"{PREFIX}{name.replace('.', '_')}.{part}" + (".weight" if part in WEIGHTS else "")


def _find_module(match: Match) -> str | None:
    """The library's module of that name; None for a name of the makers' files."""
    if match.position != WHOLE:
        return match.modules[match.position]
    return match.original if match.modules == (match.original,) and not match.pairing.swapped else None


def _group(weights: Weights, path: Path) -> dict[str, dict[str, Entry]]:
    """The tensors of each stem, by their names without `.weight`."""
    groups: dict[str, dict[str, Entry]] = {}
    for name, entry in weights.items():
        stem, _, part = name.removesuffix(".weight").rpartition(".")
        while prefix := next((one for one in _PREFIXES if stem.startswith(one)), None):
            stem = stem.removeprefix(prefix)
        groups.setdefault(stem, {})[part] = entry
    if not groups:
        raise AdapterError("The file holds nothing.", got=str(path), fix="choose another file")
    return groups


def _build_change(stem: str, tensors: Mapping[str, Entry], path: Path) -> LayerChange:
    blocks = tensors.get("oft_blocks")
    algo = next((algo for mark, algo in _MARKS.items() if mark in tensors), None)
    if blocks is not None:
        algo = "boft" if len(blocks.shape) == 4 else "diag-oft"
    known = _KNOWN.get(algo or "", ())
    strange = [name for name in tensors if name not in (*known, _ALPHA)]
    if algo is None or strange:
        raise AdapterError(
            "The file holds tensors that weber does not know.",
            got=f"{path}: {stem} with {', '.join(strange)}",
            expected="lokr, loha, lora, full, diag-oft, boft or glora of LyCORIS for linear layers",
            fix="use it with the program that made it",
        )
    own = {name: entry for name, entry in tensors.items() if name != _ALPHA}
    rank = find_rank(LayerChange(algo, own, 0.0).build_sizes())
    return LayerChange(algo, own, float(tensors[_ALPHA].read().float().item()) if _ALPHA in tensors else float(rank or 0))


_KNOWN: Mapping[str, Sequence[str]] = {
    "lokr": ("lokr_w1", "lokr_w1_a", "lokr_w1_b", "lokr_w2", "lokr_w2_a", "lokr_w2_b", LENGTHS),
    "loha": ("hada_w1_a", "hada_w1_b", "hada_w2_a", "hada_w2_b", LENGTHS),
    "lora": ("lora_up", "lora_down", LENGTHS),
    "full": ("diff", "diff_b"),
    "diag-oft": ("oft_blocks", "rescale"),
    "boft": ("oft_blocks", "rescale"),
    "glora": ("a1", "a2", "b1", "b2"),
}
