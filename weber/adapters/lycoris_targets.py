"""Which layers a preset of LyCORIS means, asked of LyCORIS itself."""

from __future__ import annotations

import logging
import re
from collections.abc import Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from fnmatch import fnmatch

import torch
from torch import nn

from weber.config.lycoris import LycorisConfig, LycorisLayer, LycorisPreset
from weber.errors import AdapterError
from weber.families.pattern import list_near, list_parents

_NUM_SHOWN = 3


def list_layers(model: nn.Module, config: LycorisConfig, *, names: Sequence[str]) -> dict[str, LycorisLayer]:
    """What becomes of each linear layer of `model` that changes, in the model's order; without a preset these are `names`.

    Raises AdapterError where a part of the preset means no layer.
    """
    layers = config.build_layers()
    if config.apply_preset is None:
        return dict.fromkeys(names, layers[""])
    preset = config.apply_preset
    classes = _list_classes(model, preset)
    found = _find(model, preset, classes)
    linears = [name for name, module in model.named_modules() if isinstance(module, nn.Linear)]
    for key, patterns in (("exclude_name", preset.exclude_name), ("name_algo_map", preset.name_algo_map)):
        for pattern in patterns:
            if not any(_is_named(part, pattern, preset) for name in linears for part in list_parents(name)):
                raise _build_absent(key, pattern, linears, what="linear layer")
    for pattern in preset.target_name:
        if not any(_is_named(name, pattern, preset) for name in found):
            raise _build_absent("target_name", pattern, linears, what="linear layer that is not excluded")
    if not found:
        raise AdapterError(
            "The preset of LyCORIS means no layer of this model.",
            got="adapter.lycoris.apply_preset",
            expected="classes of modules such as " + ", ".join(list(dict.fromkeys(type(one).__name__ for one in model.modules()))[-4:]),
            fix="correct it, or remove it and set adapter.targets",
        )
    _check_classes(model, preset, classes=classes, found=found)
    _check_entries(preset, found)
    return {name: layers[found[name]] for name in linears if name in found}


def _list_classes(model: nn.Module, preset: LycorisPreset) -> dict[str, list[str]]:
    """The classes that each name in the preset means. Raises AdapterError for names that mean none."""
    there = list(dict.fromkeys(type(module).__name__ for module in model.modules()))
    classes: dict[str, list[str]] = {}
    for key, names in (("target_module", preset.target_module or []), ("module_algo_map", preset.module_algo_map)):
        for name in names:
            classes[name] = [name] if name in there else [one for one in there if one.endswith(name)]
            if not classes[name]:
                raise _build_absent(key, name, there, what="class of modules")
    return classes


def _find(model: nn.Module, preset: LycorisPreset, classes: Mapping[str, Sequence[str]]) -> dict[str, str]:
    """The layers, each with the key of the entry of a map that it follows, or with nothing.

    LyCORIS puts the smallest change on a model without numbers; the rank says which entry it followed.
    """
    from lycoris.wrapper import LycorisNetwork

    keys = ["", *preset.entries]
    marks = {key: {"dim": number} for number, key in enumerate(keys, 1)}
    targets = ["Linear"] if preset.target_module is None else [one for name in preset.target_module for one in classes[name]]
    told = {
        "enable_conv": False,
        "target_module": targets,
        "target_name": preset.target_name,
        "module_algo_map": {one: marks[f"module_algo_map.{name}"] for name in preset.module_algo_map for one in classes[name]},
        "name_algo_map": {name: marks[f"name_algo_map.{name}"] for name in preset.name_algo_map},
        "lora_prefix": "lycoris",
        "use_fnmatch": preset.use_fnmatch,
        "exclude_name": preset.exclude_name,
    }
    with _told(told), torch.device("meta"):
        network = LycorisNetwork(model, lora_dim=1, network_module="locon", warn_on_unmatched=False, bypass_mode=True)
    names = {module: name for name, module in model.named_modules()}
    return {names[one.org_module[0]]: keys[one.lora_dim - 1] for one in network.loras}


@contextmanager
def _told(preset: Mapping[str, object]) -> Iterator[None]:
    """LyCORIS keeps its preset in a class; afterwards it is as it was. What it prints on the way is for its own users."""
    from lycoris.wrapper import LycorisNetwork

    kept = {name: value for name, value in vars(LycorisNetwork).items() if name.isupper()}
    logger = logging.getLogger("LyCORIS")
    was_disabled, logger.disabled = logger.disabled, True
    try:
        LycorisNetwork.apply_preset(preset)
        yield
    finally:
        logger.disabled = was_disabled
        for name, value in kept.items():
            setattr(LycorisNetwork, name, value)


def _check_classes(model: nn.Module, preset: LycorisPreset, *, classes: Mapping[str, Sequence[str]], found: Iterable[str]) -> None:
    """Each class has to have a layer in it that changes."""
    kinds = {name: type(module).__name__ for name, module in model.named_modules()}
    changed = {kinds[part] for name in found for part in list_parents(name)}
    for name in preset.target_module or []:
        if changed.isdisjoint(classes[name]):
            raise AdapterError(
                "A setting of LyCORIS means no layer.",
                got=f"adapter.lycoris.apply_preset.target_module with {name}, in which no linear layer is that changes",
                fix="remove it, or name a class of modules that has linear layers",
            )


def _check_entries(preset: LycorisPreset, found: Mapping[str, str]) -> None:
    """Each entry of a map has to have layers, and by names only those: where LyCORIS skips a name, what comes next gets its entry."""
    for key in preset.entries:
        kind, _, pattern = key.partition(".")
        followers = [name for name, one in found.items() if one == key]
        if not followers or (kind == "name_algo_map" and not all(_is_named(name, pattern, preset) for name in followers)):
            raise AdapterError(
                "A setting of LyCORIS means no layer.",
                got=f"adapter.lycoris.apply_preset.{key}",
                expected="layers that are not reached already: a class in target_module takes all layers in it, whatever their names",
                fix="correct the name, remove it, or name layers by target_name instead of target_module",
            )


def _is_named(name: str, pattern: str, preset: LycorisPreset) -> bool:
    """As LyCORIS sees it."""
    return name == pattern or (fnmatch(name, pattern) if preset.use_fnmatch else re.match(pattern, name) is not None)


def _build_absent(key: str, name: str, names: Iterable[str], *, what: str) -> AdapterError:
    return AdapterError(
        "A setting of LyCORIS means nothing in this model.",
        got=f"adapter.lycoris.apply_preset.{key} with {name}",
        expected=f"a {what}, such as " + ", ".join(list_near([name], list(names), num=_NUM_SHOWN)),
        fix="correct it or remove it",
    )
