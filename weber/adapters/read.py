"""From the tensors of an adapter file, in any layout, to the changes of the library's layers."""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field

import torch
from torch import Tensor

from weber.adapters.factors import Factors
from weber.adapters.fuse import build_parts
from weber.adapters.kinds import LORA, LYCORIS, find_kind
from weber.adapters.metadata import SETTINGS_KEY, read_alphas
from weber.adapters.names import ALPHA, COMFYUI, DIFFUSERS, DOWN, MAGNITUDE, UP, WHOLE, Fit, build_note, list_fits, list_further, read_name
from weber.adapters.text import TEXT_PREFIX, find_text_module, has_clip
from weber.errors import AdapterError
from weber.families.finite import is_finite
from weber.families.pairing import Match
from weber.families.tensors import Entry, Weights

_NUM_SHOWN = 3


@dataclass
class _Layer:
    """The tensors of one stem, by role, and their names in the file."""

    layout: str
    entries: dict[str, Entry] = field(default_factory=dict)
    names: dict[str, str] = field(default_factory=dict)

    @property
    def shape(self) -> tuple[int, int]:
        return self.entries[UP].shape[0], self.entries[DOWN].shape[1]

    @property
    def rank(self) -> int:
        return self.entries[DOWN].shape[0]


@dataclass(frozen=True)
class Reading:
    """What was read. `layout`: who names tensors so. `classes`: the library's models that it fits. `notes`: what the file leaves open."""

    layout: str
    modules: dict[str, Factors]
    classes: tuple[str, ...]
    notes: tuple[str, ...]


def read_modules(weights: Weights, metadata: Mapping[str, str]) -> Reading:
    """The changes in an adapter file, by module. Raises AdapterError for what is none that weber reads."""
    kind = find_kind(weights)
    if kind is not LORA:
        fix = "convert it with the program that made it" if kind.is_adapter else "give an adapter file"
        if kind in LYCORIS:
            fix = 'merge it into its model (`weber merge --base`), or train it on with adapter.kind = "lycoris"'
        raise AdapterError(
            f"The file is no LoRA that weber reads, but a {kind.name}.",
            got=_list_some(weights),
            expected="LoRA factors of the transformer, and of CLIP",
            fix=fix,
        )
    layers, further = _group(weights)
    layout = Counter(layer.layout for layer in layers.values()).most_common(1)[0][0]
    text = {stem: module for stem in layers if (module := find_text_module(stem)) is not None}
    changed = {stem: layer for stem, layer in layers.items() if stem not in text}
    fits = _list_fits(changed, text)
    matches = fits[0].matches if fits else _match_nothing(changed, layout)
    alphas, notes = _choose_alphas(layers, text, metadata)
    notes += further
    modules: dict[str, Factors] = {}
    for stem, layer in layers.items():
        match = matches.get(stem)
        for module, factors in _build_modules(text.get(stem, stem), layer, alpha=alphas[stem], match=match).items():
            if module in modules:
                raise AdapterError("The file changes one layer twice.", got=f"{module}, again as {stem}", fix="remove one of the two")
            modules[module] = factors
    return Reading(layout, modules, tuple(fit.family.transformer_class for fit in fits), notes)


@dataclass(frozen=True)
class FileLayer:
    """A layer as its file has it: the names of its tensors by role, the module that PEFT's settings call it, its change."""

    names: dict[str, str]
    module: str
    factors: Factors


def read_layers(weights: Weights, metadata: Mapping[str, str]) -> dict[str, FileLayer]:
    """The layers of a file that `read_modules` reads, by stem, undivided."""
    layers, _ = _group(weights)
    text = {stem: module for stem in layers if (module := find_text_module(stem)) is not None}
    alphas, _ = _choose_alphas(layers, text, metadata)
    return {
        stem: FileLayer(layer.names, text.get(stem, stem), _build_factors(stem, layer, alphas[stem])) for stem, layer in layers.items()
    }


def _group(weights: Weights) -> tuple[dict[str, _Layer], tuple[str, ...]]:
    """Layers by stem, each with factors that fit each other; and what is said of tensors that belong to none."""
    layers: dict[str, _Layer] = {}
    strange = []
    for name, entry in weights.items():
        read = read_name(name)
        if read is None:
            strange.append(name)
            continue
        layer = layers.setdefault(read.stem, _Layer(read.layout))
        if read.role in layer.entries:
            raise AdapterError("The file changes one layer twice.", got=f"{read.stem}, again as {name}", fix="remove one of the two")
        layer.entries[read.role] = entry
        layer.names[read.role] = name
    further = list_further(strange)
    if len(further) < len(strange) or not layers:
        got = _list_some(name for name in strange if name not in further or not layers)
        raise AdapterError("The file holds tensors that are none of a LoRA.", got=got, fix="check what wrote the file")
    for stem, layer in layers.items():
        shapes = {role: entry.shape for role, entry in layer.entries.items()}
        down, up, magnitude = shapes.get(DOWN, ()), shapes.get(UP, ()), shapes.get(MAGNITUDE)
        if len(down) != 2 or len(up) != 2 or down[0] != up[1] or down[0] < 1 or magnitude not in (None, up[:1]):
            raise AdapterError(
                "The factors of a layer do not fit each other.",
                got=f"{stem} with " + ", ".join(f"{role} {'x'.join(map(str, shape))}" for role, shape in shapes.items()),
                expected="down rank x inputs and up outputs x rank",
                fix="save the adapter again with the program that made it",
            )
    return layers, (build_note(further),) if further else ()


def _list_fits(layers: Mapping[str, _Layer], text: Mapping[str, str]) -> list[Fit]:
    """The families that know all of these stems of their transformer, and have CLIP where stems of that are there too."""
    fits = list_fits({stem: layer.shape for stem, layer in layers.items()})
    able = [fit for fit in fits if has_clip(fit.family)] if text else fits
    if fits and not able:
        raise AdapterError(
            "The file changes CLIP too, which its model does not have.",
            got=_list_some(text),
            expected=f"layers of {fits[0].family.transformer_class} alone",
            fix="check what wrote the file",
        )
    return able


def _match_nothing(layers: Mapping[str, _Layer], layout: str) -> dict[str, Match]:
    """In the library's layout the stems are modules already, of whatever model. Raises AdapterError in any other."""
    if layout == DIFFUSERS:
        return {}
    raise AdapterError(
        "The file is for no model that weber knows.",
        got=_list_some(f"{stem} ({layer.shape[0]} x {layer.shape[1]})" for stem, layer in layers.items()),
        expected="layers of one of the families in `weber variants`",
        fix="check which model the file is for",
    )


def _choose_alphas(
    layers: Mapping[str, _Layer], text: Mapping[str, str], metadata: Mapping[str, str]
) -> tuple[dict[str, float], tuple[str, ...]]:
    """Alpha of each stem: its own tensor, else PEFT's settings, else the rank, as the library takes it; and what was assumed."""
    given = {stem: _read_alpha(stem, layer.entries[ALPHA]) for stem, layer in layers.items() if ALPHA in layer.entries}
    ranks = {stem: layer.rank for stem, layer in layers.items()}
    if SETTINGS_KEY in metadata:
        own = {stem: rank for stem, rank in ranks.items() if stem in text}
        alphas = read_alphas(metadata[SETTINGS_KEY], {stem: rank for stem, rank in ranks.items() if stem not in text})
        of_text = read_alphas(metadata[SETTINGS_KEY], own, prefix=TEXT_PREFIX)
        idle = [one for one in {**alphas.patterns, **of_text.patterns} if not (alphas.patterns.get(one) or of_text.patterns.get(one))]
        note = f"alpha_pattern in its header means no layer of the file: {_list_some(idle)}."
        return alphas.by_module | of_text.by_module | given, (note,) if idle else ()
    silent = [stem for stem, layer in layers.items() if stem not in given and layer.layout != COMFYUI]
    note = f"The file does not say the alpha of {len(silent)} layers: taken to be their rank."
    return {stem: float(rank) for stem, rank in ranks.items()} | given, (note,) if silent else ()


def _read_alpha(stem: str, entry: Entry) -> float:
    alpha = float(entry.read().item()) if math.prod(entry.shape) == 1 else math.nan
    if not math.isfinite(alpha):
        raise AdapterError("The alpha of a layer is not a number.", got=f"{stem}: {entry.shape}", fix="save the adapter again")
    return alpha


def _build_modules(stem: str, layer: _Layer, *, alpha: float, match: Match | None) -> dict[str, Factors]:
    factors = _build_factors(stem, layer, alpha)
    if match is None:
        return {stem: factors}
    if match.position != WHOLE:
        return {match.modules[match.position]: factors}
    if factors.magnitude is not None:
        raise AdapterError(
            "A DoRA is read in the library's layout only.", got=f"lora_magnitude_vector of {stem}", fix="convert it with its own program"
        )
    parts = build_parts(factors, match.pairing.split(layer.shape[0]), swapped=match.pairing.swapped)
    return {module: part for module, part in zip(match.modules, parts, strict=True) if part is not None}


def _build_factors(stem: str, layer: _Layer, alpha: float) -> Factors:
    tensors = {role: _read_float(stem, role, entry) for role, entry in layer.entries.items() if role != ALPHA}
    return Factors(tensors[DOWN], tensors[UP], alpha, tensors.get(MAGNITUDE))


def _read_float(stem: str, role: str, entry: Entry) -> Tensor:
    """The tensor in fp32, bf16 or fp16; fp8 as bf16, which holds the same values."""
    if not entry.dtype.is_floating_point:
        raise AdapterError(
            "The factors of a layer are quantized.",
            got=f"{stem} in {entry.dtype}",
            expected="fp32, bf16, fp16 or fp8",
            fix="use the file as it was trained",
        )
    tensor = entry.read()
    if not is_finite(tensor):
        raise build_failure(f"{stem}, {role}")
    if entry.dtype in (torch.float32, torch.bfloat16, torch.float16):
        return tensor
    return tensor.to(torch.bfloat16 if entry.dtype.itemsize == 1 else torch.float32)


def build_failure(got: str) -> AdapterError:
    """The error for an adapter of whose tensors one is not finite."""
    return AdapterError(
        "The adapter holds numbers that are not finite: its training has failed.",
        got=got,
        fix="take an earlier checkpoint of the run that made it",
    )


def _list_some(names: Iterable[str]) -> str:
    listed = list(names)
    return ", ".join(listed[:_NUM_SHOWN]) + (f" and {len(listed) - _NUM_SHOWN} more" if listed[_NUM_SHOWN:] else "") or "nothing in it"
