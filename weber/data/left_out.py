"""Folders below a set that hold pictures, but not of the set: weber's own runs and caches, and what systems keep beside pictures."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path

from weber.data.backends.backend import Listing

CONFIG_FILE, METRICS_FILE, LOCK_FILE = "config.toml", "metrics.jsonl", "run.lock"
"""What a run folder has: from its start the lock; from its first step on the others, which are in copies of it too."""
RUN_FOLDERS = ("pictures", "samples")
CHECKPOINT_START = "checkpoint-"
CACHE_FILE = "index.sqlite"
"""What every cache has."""

SAMPLES_FILE = "painted-by-weber.log"
"""What a folder has that pictures were painted into beside an adapter or a model which lies in no run."""

ASIDE_FOLDER = "set-aside"
"""Where pictures go that a person has taken out of a set, below the set's folder."""

_TELLING = frozenset((CONFIG_FILE, METRICS_FILE, LOCK_FILE, CACHE_FILE, SAMPLES_FILE))
_SYSTEM = frozenset({"__macosx", "@eadir", "#recycle", "$recycle.bin", "system volume information"})


@dataclass(frozen=True)
class Kept:
    """The files of a set, and the folders of weber's own that were left out, by their names below the set's."""

    files: Listing
    own: list[str]


def leave_out(listing: Listing, *, own: Iterable[Path]) -> Kept:
    """Files below a folder without those that lie in other folders of weber's own: `own`, all that look like a run, a cache or what was
    painted, and those that were set aside.

    Of a folder that is a run itself, its pictures and checkpoints are left out.
    """
    folder, homes = listing.folder, [name.rpartition("/")[0] for name in listing.names]
    above = {home: _list_above(home) for home in dict.fromkeys(homes)}
    checkpoints = [one for found in above.values() for one in found if one.rpartition("/")[2].startswith(CHECKPOINT_START)]
    runs = _list_runs(zip(homes, listing.names, strict=True), checkpoints)
    absolute = [one.absolute() for one in own]
    roots = (runs - {""}) | {one.relative_to(folder).as_posix() for one in absolute if one != folder and one.is_relative_to(folder)}
    if "" in runs or folder in absolute:
        roots |= {*RUN_FOLDERS} | {one for one in checkpoints if "/" not in one}
    roots |= {one for found in above.values() for one in found if one.rpartition("/")[2] == ASIDE_FOLDER}
    inside = {home: [one for one in found if one in roots] for home, found in above.items()}
    kept = {home for home, found in inside.items() if not found and not _is_of_system(home)}
    places = [
        place
        for place, (home, name) in enumerate(zip(homes, listing.names, strict=True))
        if home in kept and (name[len(home) + 1 :] if home else name) != SAMPLES_FILE
    ]
    return Kept(listing.choose(places), sorted({found[-1] for found in inside.values() if found}))


def _list_above(home: str) -> list[str]:
    """A folder and those that it lies in, up to the set's own, whose name is empty; that itself is none of them."""
    parts = home.split("/") if home else []
    return ["/".join(parts[:number]) for number in range(len(parts), 0, -1)]


def _list_runs(files: Iterable[tuple[str, str]], checkpoints: Iterable[str]) -> set[str]:
    """The folders that are a run or a cache, or hold what was painted, by what is in them."""
    with_checkpoints = {one.rpartition("/")[0] for one in checkpoints}
    names: dict[str, set[str]] = {}
    for home, file in files:
        name = file[len(home) + 1 :] if home else file
        if name in _TELLING:
            names.setdefault(home, set()).add(name)
    return {
        folder
        for folder, found in names.items()
        if {CACHE_FILE, LOCK_FILE, SAMPLES_FILE} & found or (CONFIG_FILE in found and (METRICS_FILE in found or folder in with_checkpoints))
    }


def _is_of_system(home: str) -> bool:
    return any(part.lower() in _SYSTEM for part in home.split("/"))
