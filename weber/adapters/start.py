"""An adapter to start training from: what has to be true of it, known before the model is read."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import replace
from pathlib import Path

from weber.adapters.factors import Factors
from weber.adapters.files import AdapterFile, load_adapter
from weber.adapters.kinds import LORA, find_kind
from weber.adapters.merge import build_cut
from weber.adapters.rules import build_settings
from weber.adapters.text import is_text
from weber.config.adapter import AdapterConfig
from weber.errors import AdapterError, ModelError
from weber.families.tensors import open_weights

_NUM_SHOWN = 3


_FORMS = {
    "lokr": "LoKr",
    "loha": "LoHa",
    "diag-oft": "OFT or BOFT",
    "boft": "OFT or BOFT",
    "glora": "GLoRA",
    "full": "whole changes of weights",
}
"""A form of LyCORIS -> the kind of its files; those of the others are LoRAs."""
_WORDS = {"LoRA": "a LoRA", "LoKr": "a LoKr", "LoHa": "a LoHa", "OFT or BOFT": "an OFT or BOFT", "GLoRA": "a GLoRA"}


def check_form(config: AdapterConfig) -> None:
    """Refuse a file to start from that is of another form than what is trained, by the names of its tensors. Raises AdapterError."""
    path = Path(config.start_from or "").expanduser()
    found = _find_form(path) if config.start_from is not None else None
    layers = {} if config.lycoris is None else config.lycoris.build_layers()
    trained = list(dict.fromkeys(_FORMS.get(one.algo, LORA.name) for one in layers.values())) or [LORA.name]
    if found is None or found in trained:
        return
    forms = [algo for algo, form in _FORMS.items() if form == found]
    switch = f'adapter.kind = "lycoris" with algo = "{forms[0]}" under [adapter.lycoris]' if forms else 'adapter.kind = "lora"'
    raise AdapterError(
        f"The adapter to start from is {_WORDS.get(found, found)}, and the run trains {_WORDS.get(trained[0], trained[0])}.",
        got=f"adapter.start_from = {path}",
        expected=f"a file of the form that is trained: {' or '.join(trained)}",
        fix=f"set {switch}; or merge it into the model (`weber merge --base`), and train on that",
    )


def _find_form(path: Path) -> str | None:
    """The kind of an adapter file, where runs train such; what is none is told when it is read."""
    try:
        kind = find_kind(open_weights([path]))
    except ModelError:
        return None
    return kind.name if kind is LORA or kind.name in _FORMS.values() else None


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
    got, expected = _compare_shapes(start, {**(linears or {}), **modules})
    _refuse(
        f"is for another model ({' or '.join(start.classes) or 'unknown'})",
        [name for name in start.modules if linears is not None and name not in linears and not is_text(name)],
        path=path,
        expected=expected and f"for {got}: {expected}",
        fix="choose an adapter that was made for this model",
    )
    _refuse(
        "is for a model with other shapes",
        [got] if got else [],
        path=path,
        expected=expected,
        fix="choose an adapter that was made for this model, or the model that it was made for",
    )
    _refuse(
        "has layers that the settings do not train",
        [name for name in start.modules if name not in modules],
        path=path,
        fix="add them to adapter.targets",
    )
    _refuse(
        "is a DoRA, and adapter.kind is lora",
        [name for name, one in start.modules.items() if one.magnitude is not None and not config.dora],
        path=path,
        fix="set adapter.dora = true, or merge it into its model and train on that",
    )
    return _fit_ranks(start, config, path=path)


def _compare_shapes(start: AdapterFile, layers: Mapping[str, tuple[int, int]]) -> tuple[str, str]:
    """A layer that has other sizes in the file than in the model, with them, and those of the model; nothing where all are equal."""
    for name, one in start.modules.items():
        shape = (one.down.shape[1], one.up.shape[0])
        if layers.get(name, shape) != shape:
            return f"{_describe_shape(shape)} in {name}", f"{_describe_shape(layers[name])}, as the model has there"
    return "", ""


def _describe_shape(shape: tuple[int, int]) -> str:
    return f"{shape[0]} inputs and {shape[1]} outputs"


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


def _refuse(what: str, names: Iterable[str], *, path: Path, fix: str, expected: str = "") -> None:
    listed = list(names)
    if listed:
        raise AdapterError(
            f"The adapter to start from {what}.",
            got=f"adapter.start_from = {path} with " + ", ".join(listed[:_NUM_SHOWN]) + (", ..." if listed[_NUM_SHOWN:] else ""),
            expected=expected,
            fix=fix,
        )
