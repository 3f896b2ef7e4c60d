"""Which trackers a file of another trainer asks for, as `output.trackers`."""

from __future__ import annotations

from collections.abc import Iterable

from weber.config.importers.draft import NO_EFFECT, REFUSED, Draft
from weber.config.importers.outcome import Given

KNOWN = ("tensorboard", "trackio", "wandb")
_NONE = ("", "none", "null", "false", "simpletuner")
_ALL = "all"
_PLACE = "output.trackers"


def list_trackers(names: Iterable[str]) -> list[str]:
    """Those of them that weber has; all of those that are installed is TensorBoard alone, which needs no account."""
    asked = {"tensorboard" if name == _ALL else name for name in map(str.lower, names)}
    return [name for name in KNOWN if name in asked]


def set_trackers(draft: Draft, names: Iterable[str], *, origin: Given | str) -> str:
    """`output.trackers`; names that weber lacks are refused."""
    asked = [name.strip().lower() for name in names]
    found = list_trackers(asked)
    other = next((name for name in asked if name not in (*KNOWN, *_NONE, _ALL)), None)
    if found:
        before = draft.get(_PLACE) or []
        line = draft.set(_PLACE, [name for name in KNOWN if name in (*before, *found)], origin=origin)
        return line if other is None else f"{line}; weber has no {other}"
    if other is not None:
        return f"{REFUSED}weber has no {other}; output.trackers may hold {', '.join(KNOWN)}, and metrics.jsonl is always there"
    return f"{NO_EFFECT}metrics.jsonl is always written"


def set_project(draft: Draft, value: object, *, trackers: Iterable[str], origin: Given | str) -> str:
    """`output.project`, where one of the trackers has projects."""
    return _set_name(draft, "output.project", value, trackers=trackers, origin=origin)


def set_run_name(draft: Draft, value: object, *, trackers: Iterable[str], origin: Given | str) -> str:
    """`output.run_name`, likewise."""
    return _set_name(draft, "output.run_name", value, trackers=trackers, origin=origin)


def _set_name(draft: Draft, place: str, value: object, *, trackers: Iterable[str], origin: Given | str) -> str:
    if not {"wandb", "trackio"} & set(list_trackers(trackers)):
        return f"{NO_EFFECT}there is no tracker with projects"
    return draft.set(place, str(value), origin=origin)
