"""The places that captions come from, where there are several: the first that has one, or one of them by weights."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from typing import TypeVar

from weber.config.toml import write_value

ALWAYS_THERE = {"filename", "foldername", "instance", "none"}
"""Sources of which every picture has a caption."""

_T = TypeVar("_T")


def list_items(value: _T | list[_T] | None) -> list[_T]:
    """A setting that may be one value or a list, as a list."""
    return value if isinstance(value, list) else [] if value is None else [value]


def list_place_problems(lists: Mapping[str, object], weights: Sequence[float]) -> Iterator[str]:
    """What cannot act in the lists of places, as `what; fix`. `lists` are the settings that may be one, by their names."""
    several = {name: value for name, value in lists.items() if isinstance(value, list) and (value or name != "caption_endings")}
    for name, value in several.items():
        twice = [one for one in value if value.count(one) > 1]
        if not value:
            yield f"{name} is an empty list; write what it is to be, or remove it"
        elif twice and name != "instance_prompt":
            yield f"{name} has {write_value(twice[0])} twice; name each once"
    for ending in list_items(lists.get("caption_endings")):
        if not str(ending).startswith(".") or set("/\\") & set(str(ending)):
            yield f'caption_endings has "{ending}", which is no ending; write what follows the name of the picture, such as ".txt"'
    sources = list_items(lists.get("captions"))
    always = next((place for place, one in enumerate(sources[:-1]) if one in ALWAYS_THERE), None)
    if always is not None and not weights:
        yield (
            f'captions asks nothing behind "{sources[always]}", which every picture has; put it last, or set caption_weights to draw from'
            " all of them"
        )
    yield from _check_weights({name: value for name, value in several.items() if len(value) > 1}, weights)


def _check_weights(several: Mapping[str, Sequence[object]], weights: Sequence[float]) -> Iterator[str]:
    if not weights:
        return
    if not several:
        names = "captions, caption_endings, caption_key, caption_column or instance_prompt"
        yield f"caption_weights has nothing to choose from; write several places in one of {names}, or remove it"
    elif len(several) > 1:
        yield f"caption_weights cannot say which list it is of, {' or '.join(several)}; leave one of them a list"
    else:
        [(name, value)] = several.items()
        if len(value) != len(weights):
            noun = "number" if len(weights) == 1 else "numbers"
            yield f"caption_weights has {len(weights)} {noun}, but {name} has {len(value)} entries; write one number for each"
