"""Folders that a run writes into: its own, or new ones. Never a folder of something else."""

from __future__ import annotations

import re
from collections.abc import Iterator
from pathlib import Path

from weber.cache.catalog import is_shard
from weber.checkpoint.lock import LOCK_NAME
from weber.checkpoint.save import MANIFEST
from weber.config.elsewhere import find_scheme
from weber.config.run import RunConfig
from weber.data.backends.sources import FETCHED_FOLDERS
from weber.errors import ConfigError
from weber.planning.plan import HUB_NAME, INDEX_NAME
from weber.planning.resolve import build_absolute
from weber.results.runs import is_run

_CHECKPOINT = re.compile(r"checkpoint-\d{6,}(?:-.+)?")
_IGNORED = {"desktop.ini", "Thumbs.db"}
"""What systems put into any folder; on others its name starts with a dot."""
_NUM_SHOWN = 3


def check_places(config: RunConfig) -> None:
    """Refuse a run folder or a cache that holds, is or lies in something else. Raises ConfigError."""
    folder, cache = build_absolute(config.output.folder), build_absolute(config.output.cache)
    if folder == cache:
        raise ConfigError(
            "The run folder and the cache are one folder.",
            got=f"output.folder = {folder}, output.cache = {cache}",
            fix="set output.cache to another folder, which any number of runs may share",
        )
    for key, place in (("output.folder", folder), ("output.cache", cache)):
        _check_place(place, config, key=key)
    others = [one for one in _list_names(folder) if folder / one not in _up(cache)]
    if others and not is_run(folder) and not (folder / LOCK_NAME).exists():
        raise ConfigError(
            "The run folder holds other files, and no run.",
            got=f"output.folder = {folder} with {_show(others)}",
            expected="a new or an empty folder, or that of a run",
            fix="set output.folder to a new folder",
        )
    names = _list_names(cache)
    is_cache = any(name == INDEX_NAME or is_shard(name) for name in names) or {*names} <= {HUB_NAME, *FETCHED_FOLDERS}
    if not is_cache:
        raise ConfigError(
            "The cache folder holds other files, and nothing of a cache.",
            got=f"output.cache = {cache} with {_show(names)}",
            expected="a new or an empty folder, or that of a cache",
            fix="set output.cache to a new folder",
        )


def _check_place(place: Path, config: RunConfig, *, key: str) -> None:
    file = next((one for one in _up(place) if one.is_file()), None)
    if file is not None:
        raise ConfigError("The folder is a file.", got=f"{key} = {place}, and {file} is a file", fix=f"choose another {key}")
    checkpoint = next((one for one in _up(place) if _CHECKPOINT.fullmatch(one.name) and (one / MANIFEST).is_file()), None)
    if checkpoint is not None:
        resume = ""
        if key == "output.folder":
            resume = f"; to go on from the checkpoint set it to {checkpoint.parent} and add --resume {checkpoint.name}"
        raise ConfigError(
            "A checkpoint of a run is no place for anything else: it is deleted when newer ones are there.",
            got=f"{key} = {place}",
            fix=f"set {key} to another folder{resume}",
        )
    folders = ((name, data) for name, data in _list_data(config) if not find_scheme(data))
    same = next((name for name, data in folders if build_absolute(data).resolve() == place.resolve()), None)
    if same is not None:
        got = f"{key} = {place}, which is {same}"
        raise ConfigError("The folder is one of pictures.", got=got, fix=f"set {key} to a folder of its own")


def _list_data(config: RunConfig) -> Iterator[tuple[str, Path]]:
    for number, one in enumerate(config.data):
        folders = {"path": one.path, "masks": one.masks, "loss_masks": one.loss_masks}
        folders |= {f"conditioning.{place}": path for place, path in enumerate(one.conditioning)}
        for name, folder in folders.items():
            if folder is not None:
                yield f"data.{number}.{name}", folder


def _up(place: Path) -> tuple[Path, ...]:
    """The folder and all that it lies in."""
    return place, *place.parents


def _list_names(folder: Path) -> list[str]:
    """What a person would see in a folder."""
    if not folder.is_dir():
        return []
    return sorted(one.name for one in folder.iterdir() if not one.name.startswith(".") and one.name not in _IGNORED)


def _show(names: list[str]) -> str:
    return ", ".join(names[:_NUM_SHOWN]) + (f" and {len(names) - _NUM_SHOWN} more" if len(names) > _NUM_SHOWN else "")
