"""Files of LyCORIS: read with the names of any program (`lycoris_names.py`), and written so that LyCORIS, SimpleTuner and ComfyUI read
them."""

from __future__ import annotations

import json
from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path

import torch
from torch import Tensor, nn

from weber.adapters.factors import Factors
from weber.adapters.files import AdapterFile
from weber.adapters.full import Parameters, load_tensors
from weber.adapters.kinds import LYCORIS, find_kind
from weber.adapters.lycoris import CHANGE, list_changes
from weber.adapters.lycoris_forms import LENGTHS, find_alpha, find_rank
from weber.adapters.lycoris_layers import ALPHA, LayerChange, build_change, list_ranges, take_rows
from weber.adapters.lycoris_merge import FusedChange
from weber.adapters.lycoris_names import BIAS, Group, build_names, group_tensors
from weber.adapters.metadata import FACTS_KEY, build_metadata, read_facts
from weber.adapters.names import LYCORIS_LAYOUT, WHOLE, Fit, list_fits
from weber.adapters.precision import build_rounded
from weber.adapters.read import build_failure
from weber.adapters.text import find_text_module
from weber.config.adapter import AdapterConfig
from weber.config.lycoris import LycorisLayer
from weber.errors import AdapterError, ModelError
from weber.families.finite import is_finite
from weber.families.pairing import Match, Pairing
from weber.families.tensors import Entry, build_entry, open_weights, read_metadata, save_weights

_NUM_SHOWN = 3


@dataclass(frozen=True)
class LycorisFile(AdapterFile):
    """A file of LyCORIS; `changes` have the names of the library's modules.

    `fused`: changes of the makers' layers, by their names there, that are none of the library's layers and cannot be divided among them.
    """

    changes: dict[str, LayerChange] = field(default_factory=dict)
    fused: dict[str, FusedChange] = field(default_factory=dict)

    @property
    def num_layers(self) -> int:
        """See `AdapterFile`."""
        return len(self.changes) + sum(len(one.match.modules) for one in self.fused.values())

    @property
    def layers(self) -> list[LayerChange]:
        """All changes."""
        return [*self.changes.values(), *(one.change for one in self.fused.values())]


def load_lycoris(path: Path) -> LycorisFile:
    """Read a file of LyCORIS, with the names of any program; of its tensors only the scales. Raises AdapterError where it is none, or for
    no model that weber knows."""
    if not path.is_file():
        raise AdapterError("There is no adapter file.", got=str(path), fix="give a *.safetensors file that a run has saved")
    try:
        weights, metadata = open_weights([path]), read_metadata(path)
    except ModelError as error:
        raise AdapterError(error.what, got=f"{path}: {error.got}", expected=error.expected, fix=error.fix) from error
    groups = group_tensors(weights, where=str(path))
    _check_finite(groups.by_stem, path)
    layers = {stem: build_change(stem, one.tensors, where=str(path)) for stem, one in groups.by_stem.items()}
    fits = list_fits({stem: _find_shape(one) for stem, one in layers.items()})
    _check_model(layers, fits, path)
    changes: dict[str, LayerChange] = {}
    fused: dict[str, FusedChange] = {}
    is_ours = any(one.layout == LYCORIS_LAYOUT for one in groups.by_stem.values())
    for stem, match in fits[0].matches.items():
        _check_lengths(stem, layers[stem], is_ours=is_ours, path=path)
        parts = _list_parts(layers[stem], match)
        if parts is None:
            fused[match.original] = FusedChange(match, layers[stem])
        for module, part in parts or []:
            changes[module] = _join(changes.get(module), part, stem=stem, path=path)
    changes = {module: one for module, one in changes.items() if not _is_nothing(one)}
    twice = [name for name, one in fused.items() for module in one.match.modules if module in changes]
    if twice:
        raise _build_twice(twice[0], path)
    layout = Counter(one.layout for one in groups.by_stem.values()).most_common(1)[0][0]
    classes = tuple(fit.family.transformer_class for fit in fits)
    return LycorisFile(layout, {}, read_facts(metadata), metadata, classes, groups.notes, changes, fused)


def is_lycoris(path: Path) -> bool:
    """Whether a file is one of LyCORIS' own kinds, by the names of its tensors; a LoRA in its layout is none."""
    try:
        return path.is_file() and find_kind(open_weights([path])) in LYCORIS
    except ModelError:
        return False


def save_lycoris(
    path: Path,
    model: nn.Module,
    *,
    architecture: str,
    title: str,
    facts: Mapping[str, object],
    pairings: Sequence[Pairing],
    precision: str | None = None,
) -> None:
    """Write the changes on a model, whole or not at all. The same numbers give the same bytes. `precision`: see `save_adapter`."""
    changes = list(list_changes(model))
    tensors = build_names({one.name: _list_tensors(one.settings.algo, one.tensors, one.alpha) for one in changes}, pairings)
    tensors = build_rounded(tensors, precision)
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


def load_changes(parameters: Parameters, path: Path) -> None:
    """Write the numbers of a file into the parameters of changes. Raises AdapterError where they do not fit."""
    load_tensors(parameters, list_entries(load_lycoris(path)), where=str(path))


def list_entries(adapter: LycorisFile) -> dict[str, Entry]:
    """The tensors of a file by the names of the parameters that they are numbers of."""
    return {f"{name}.{CHANGE}.{part}": entry for name, one in adapter.changes.items() for part, entry in one.tensors.items()}


def load_lycoris_start(
    config: AdapterConfig, settings: Mapping[str, LycorisLayer], *, shapes: Mapping[str, tuple[int, ...]]
) -> LycorisFile | None:
    """The file that `adapter.start_from` names, which must have the tensors `shapes`, those that learn. Raises AdapterError."""
    if config.start_from is None:
        return None
    path = Path(config.start_from).expanduser()
    start = load_lycoris(path)
    if start.fused:
        name, fused = next(iter(start.fused.items()))
        raise AdapterError(
            "The adapter to start from changes layers that are several here, and its change cannot be divided among them.",
            got=f"adapter.start_from = {path} with {fused.change.algo} of {name}, which is {', '.join(fused.match.modules)}",
            expected="a file whose factors end where these layers do, or one with the library's names",
            fix="merge it into the model (`weber merge --base`), and train on that",
        )
    have = {name: entry.shape for name, entry in list_entries(start).items()}
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
    load_tensors(parameters, list_entries(start), where="adapter.start_from")


def list_layer_changes(model: nn.Module) -> dict[str, LayerChange]:
    """What the changes on a model do, as of a file."""
    return {
        one.name: build_change(
            one.name,
            {part: build_entry(tensor) for part, tensor in _list_tensors(one.settings.algo, one.tensors, one.alpha).items()},
            where="the run",
        )
        for one in list_changes(model)
    }


def _list_tensors(algo: str, tensors: Mapping[str, Tensor], alpha: float) -> dict[str, Tensor]:
    """The tensors of one layer in a file, by their names in LyCORIS."""
    own = {part: tensor.detach() for part, tensor in tensors.items()}
    return own if algo == "full" else own | {ALPHA: torch.tensor(alpha)}


def _find_shape(change: LayerChange) -> tuple[int, int] | None:
    return None if change.num_inputs is None else (change.num_outputs, change.num_inputs)


def _list_parts(change: LayerChange, match: Match) -> list[tuple[str, LayerChange]] | None:
    """The change of each of the library's layers; None where it cannot be divided among them."""
    if match.position != WHOLE:
        return [(match.modules[match.position], change)]
    ranges = list_ranges(match.pairing.split(change.num_outputs), swapped=match.pairing.swapped)
    parts = [(module, take_rows(change, rows)) for module, rows in zip(match.modules, ranges, strict=True)]
    divided = [(module, part) for module, part in parts if part is not None]
    return divided if len(divided) == len(parts) else None


def _join(first: LayerChange | None, second: LayerChange, *, stem: str, path: Path) -> LayerChange:
    """Weights and biases of a layer may have names of their own, and biases two of them (`lycoris_names.py`)."""
    if first is None:
        return second
    both = first.tensors.keys() & second.tensors.keys()
    are_equal = both <= {BIAS} and all(torch.equal(first.tensors[one].read(), second.tensors[one].read()) for one in both)
    if {first.algo, second.algo} != {"full"} or not are_equal:
        raise _build_twice(stem, path)
    return replace(first, tensors={**first.tensors, **second.tensors}, sizes={**first.sizes, **second.sizes})


def _is_nothing(change: LayerChange) -> bool:
    """The zeros of a layer that has no biases of its own, beside others of one original."""
    return set(change.tensors) == {BIAS} and not bool(change.tensors[BIAS].read().any())


def _check_finite(groups: Mapping[str, Group], path: Path) -> None:
    for stem, group in groups.items():
        for part, entry in group.tensors.items():
            if part != ALPHA and not is_finite(entry.read()):
                raise build_failure(f"{path}: {stem}, {part}")


def _check_lengths(stem: str, change: LayerChange, *, is_ours: bool, path: Path) -> None:
    """Lengths of outputs mean something else to ComfyUI than to those who train them; in LyCORIS' own names they are LyCORIS'."""
    lengths = change.tensors.get(LENGTHS)
    if lengths is not None and not is_ours and lengths.shape == (change.num_outputs, 1) != (1, change.num_inputs):
        raise AdapterError(
            "The file is a DoRA with a length for each output, which its readers understand differently.",
            got=f"{path}: {stem} with {LENGTHS} {list(lengths.shape)}",
            expected="a length for each input, or LyCORIS' own names",
            fix="merge it into its model with the program that made it",
        )


def _check_model(layers: Mapping[str, LayerChange], fits: Sequence[Fit], path: Path) -> None:
    """Raise AdapterError where no family, or more than one, has these layers."""
    text = [stem for stem in layers if find_text_module(stem) is not None]
    if text:
        raise AdapterError(
            "The file changes CLIP too, which weber reads of LoRAs alone.",
            got=f"{path}: {_list_some(text)}",
            expected="layers of the transformer alone",
            fix="use it with the program that made it",
        )
    if not fits:
        shapes = [f"{stem} ({one.num_outputs} x {one.num_inputs or 'any'})" for stem, one in layers.items()]
        raise AdapterError(
            "The file changes layers that no model has which weber knows, or that no one model has together.",
            got=f"{path}: {_list_some(shapes)}",
            expected="linear layers of one of the families in `weber variants`, with the library's or the makers' names",
            fix="check which model the file is for",
        )
    if len({tuple(match.modules for match in fit.matches.values()) for fit in fits}) > 1:
        raise AdapterError(
            "The names and sizes of the file's layers do not say which model it is for.",
            got=f"{path}: {_list_some(layers)}, layers of {' and of '.join(fit.family.transformer_class for fit in fits)}",
            expected="layers that one family alone has",
            fix="use it with the program that made it",
        )


def _build_twice(stem: str, path: Path) -> AdapterError:
    return AdapterError("The file changes one layer twice.", got=f"{path}: {stem}", fix="remove one of the two")


def _list_some(names: Iterable[str]) -> str:
    listed = list(names)
    return ", ".join(listed[:_NUM_SHOWN]) + (f" and {len(listed) - _NUM_SHOWN} more" if listed[_NUM_SHOWN:] else "")
