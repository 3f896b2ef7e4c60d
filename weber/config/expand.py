"""A set of several resolutions becomes several sets."""

from __future__ import annotations

from collections.abc import Sequence

from weber.config.data import DataConfig
from weber.config.resolutions import name_resolution


def expand_set(config: DataConfig) -> list[DataConfig]:
    """One set for each resolution, named `name@512`; the set itself where it has one."""
    if not isinstance(config.resolution, list):
        return [config]
    if len(config.resolution) == 1:
        return [config.model_copy(update={"resolution": config.resolution[0]})]
    return [
        config.model_copy(update={"resolution": one, "name": f"{config.set_name}@{name_resolution(one)}"}) for one in config.resolution
    ]


def list_keys(sets: Sequence[DataConfig]) -> list[str]:
    """What each expanded set is called in the settings of who wrote them: `data.0` may be several."""
    keys, number = list[str](), -1
    for place, one in enumerate(sets):
        number += not (place and _is_other_size(one, sets[place - 1]))
        keys.append(f"data.{number}")
    return keys


def _is_other_size(one: DataConfig, other: DataConfig) -> bool:
    return _strip_resolution(one) is not None and _strip_resolution(one) == _strip_resolution(other)


def _strip_resolution(config: DataConfig) -> DataConfig | None:
    """What it was expanded from, but for the resolutions; None for a set that was not."""
    ending = "" if config.resolution is None or isinstance(config.resolution, list) else f"@{name_resolution(config.resolution)}"
    if not ending or not config.set_name.endswith(ending):
        return None
    return config.model_copy(update={"name": config.set_name.removesuffix(ending), "resolution": None})
