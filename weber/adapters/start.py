"""An adapter to start training from: what has to be true of it, known before the model is read."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import replace
from pathlib import Path

from weber.adapters.factors import Factors
from weber.adapters.files import AdapterFile, load_adapter
from weber.adapters.merge import build_cut
from weber.adapters.rules import build_settings
from weber.adapters.text import is_text
from weber.config.adapter import AdapterConfig
from weber.errors import AdapterError

_NUM_SHOWN = 3


def load_start(
    config: AdapterConfig, modules: Mapping[str, tuple[int, int]], *, linears: Mapping[str, tuple[int, int]] | None = None
) -> AdapterFile | None:
    """The adapter that `adapter.start_from` names, which must fit `modules`, the targets with their (inputs, outputs).

    `linears` are all linear layers of the model: with them, a file for another model is told from one with other targets.

    Its ranks may be lower than those of the settings, and it may lack layers; higher ones are cut where `resize_start` says so. Raises
    AdapterError in words.
    """
    if config.start_from is None:
        return None
    path = Path(config.start_from).expanduser()
    start = load_adapter(path)
    _refuse(
        "changes CLIP too, and the settings do not train that",
        [name for name in start.modules if is_text(name) and name not in modules],
        path=path,
        fix="set adapter.text_encoder = true",
    )
    _refuse(
        f"is for another model ({' or '.join(start.classes) or 'unknown'})",
        [name for name in start.modules if linears is not None and name not in linears and not is_text(name)],
        path=path,
        fix="choose an adapter that was made for this model",
    )
    _refuse(
        "has layers that the settings do not train",
        [name for name in start.modules if name not in modules],
        path=path,
        fix="add them to adapter.targets",
    )
    _refuse(
        "is for a model with other shapes",
        [name for name, one in start.modules.items() if (one.down.shape[1], one.up.shape[0]) != modules[name]],
        path=path,
        fix="choose another adapter.start_from",
    )
    _refuse(
        "is a DoRA, and adapter.kind is lora",
        [name for name, one in start.modules.items() if one.magnitude is not None and not config.dora],
        path=path,
        fix="set adapter.dora = true, or merge it into its model and train on that",
    )
    return _fit_ranks(start, config, path=path)


def _fit_ranks(start: AdapterFile, config: AdapterConfig, *, path: Path) -> AdapterFile:
    """The file with no layer of a higher rank than the settings have."""
    ranks = {name: one.rank for name, one in build_settings(config, start.modules).items()}
    ranks |= {name: config.text_encoder_rank or config.rank for name in ranks if is_text(name)}
    higher = {name: one for name, one in start.modules.items() if one.rank > ranks[name]}
    if config.resize_start:
        if not higher:
            raise AdapterError(
                "No layer of the adapter to start from has a higher rank than the settings, so nothing is cut.",
                got=f"adapter.resize_start = true and {path} with rank {max(one.rank for one in start.modules.values())} at most",
                fix="remove adapter.resize_start",
            )
        return replace(start, modules=start.modules | {name: _cut(one, ranks[name]) for name, one in higher.items()})
    if higher:
        name, one = max(higher.items(), key=lambda item: item[1].rank)
        key = "adapter.text_encoder_rank" if is_text(name) and config.text_encoder_rank is not None else "adapter.rank"
        asked = f"{key} = {ranks[name]}" if is_text(name) or ranks[name] == config.rank else f"adapter.rules with rank {ranks[name]}"
        raise AdapterError(
            "The adapter to start from has a higher rank than the settings.",
            got=f"{path} with rank {one.rank} of {name}, {asked}",
            fix=f"set the rank to {one.rank} or more, or adapter.resize_start = true to keep its largest directions",
        )
    return start


def _cut(factors: Factors, rank: int) -> Factors:
    """The nearest change of that rank; lengths of a DoRA stay."""
    return replace(build_cut(factors, rank), magnitude=factors.magnitude)


def _refuse(what: str, names: Iterable[str], *, path: Path, fix: str) -> None:
    listed = list(names)
    if listed:
        raise AdapterError(
            f"The adapter to start from {what}.",
            got=f"adapter.start_from = {path} with " + ", ".join(listed[:_NUM_SHOWN]) + (", ..." if listed[_NUM_SHOWN:] else ""),
            fix=fix,
        )
