"""An adapter to start training from: what has to be true of it, known before the model is read."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from pathlib import Path

from weber.adapters.files import AdapterFile, load_adapter
from weber.config.adapter import AdapterConfig
from weber.errors import AdapterError

_NUM_SHOWN = 3


def load_start(
    config: AdapterConfig, modules: Mapping[str, tuple[int, int]], *, linears: Mapping[str, tuple[int, int]] | None = None
) -> AdapterFile | None:
    """The adapter that `adapter.start_from` names, which must fit `modules`, the targets with their (inputs, outputs).

    `linears` are all linear layers of the model: with them, a file for another model is told from one with other targets.

    Its ranks may be lower than `adapter.rank`, and it may lack layers. Raises AdapterError in words.
    """
    if config.start_from is None:
        return None
    path = Path(config.start_from).expanduser()
    start = load_adapter(path)
    _refuse(
        f"is for another model ({' or '.join(start.classes) or 'unknown'})",
        [name for name in start.modules if linears is not None and name not in linears],
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
        [name for name, one in start.modules.items() if one.magnitude is not None],
        path=path,
        fix="merge it into its model and train on that",
    )
    ranks = {one.rank for one in start.modules.values()}
    if max(ranks) > config.rank:
        raise AdapterError(
            "The adapter to start from has a higher rank than the settings.",
            got=f"{path} with rank {max(ranks)}, adapter.rank = {config.rank}",
            fix=f"set adapter.rank to {max(ranks)} or more, or cut the file with `weber merge`",
        )
    return start


def _refuse(what: str, names: Iterable[str], *, path: Path, fix: str) -> None:
    listed = list(names)
    if listed:
        raise AdapterError(
            f"The adapter to start from {what}.",
            got=f"adapter.start_from = {path} with " + ", ".join(listed[:_NUM_SHOWN]) + (", ..." if listed[_NUM_SHOWN:] else ""),
            fix=fix,
        )
