"""Folders below a set that hold pictures, but not of the set: weber's own runs and caches, and what systems keep beside pictures."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path, PurePath

CONFIG_FILE, METRICS_FILE, LOCK_FILE = "config.toml", "metrics.jsonl", "run.lock"
"""What a run folder has: from its start the lock; from its first step on the others, which are in copies of it too."""
RUN_FOLDERS = ("pictures", "samples")
CHECKPOINT_START = "checkpoint-"
CACHE_FILE = "index.sqlite"
"""What every cache has."""

SAMPLES_FILE = "painted-by-weber.log"
"""What a folder has that pictures were painted into beside an adapter or a model which lies in no run."""

_SYSTEM = frozenset({"__macosx", "@eadir", "#recycle", "$recycle.bin", "system volume information"})


@dataclass(frozen=True)
class Kept:
    """The files of a set, and the folders of weber's own that were left out, by their names below the set's."""

    files: list[Path]
    own: list[str]


def leave_out(files: Sequence[Path], folder: Path, *, own: Iterable[Path]) -> Kept:
    """Files below a folder without those that lie in other folders of weber's own: `own`, and all that look like a run, a cache or what
    was painted.

    Of a folder that is a run itself, its pictures and checkpoints are left out.
    """
    homes = {path.parent for path in files}
    checkpoints = [one for home in homes for one in (home, *home.parents) if one.name.startswith(CHECKPOINT_START)]
    found = _list_runs(files, checkpoints) | {one.absolute() for one in own}
    roots = {path for path in found if path != folder and path.is_relative_to(folder)}
    if folder in found:
        roots |= {folder / name for name in RUN_FOLDERS} | {one for one in checkpoints if one.parent == folder}
    above = {home: [one for one in (home, *home.parents) if one in roots] for home in homes}
    kept = {home for home in homes if not above[home] and not _is_of_system(home.relative_to(folder))}
    left = {one[-1].relative_to(folder).as_posix() for one in above.values() if one}
    return Kept([path for path in files if path.parent in kept and path.name != SAMPLES_FILE], sorted(left))


def _list_runs(files: Iterable[Path], checkpoints: Iterable[Path]) -> set[Path]:
    """The folders that are a run or a cache, or hold what was painted, by what is in them."""
    with_checkpoints = {one.parent for one in checkpoints}
    names: dict[Path, set[str]] = {}
    for path in files:
        if path.name in (CONFIG_FILE, METRICS_FILE, LOCK_FILE, CACHE_FILE, SAMPLES_FILE):
            names.setdefault(path.parent, set()).add(path.name)
    return {
        folder
        for folder, found in names.items()
        if {CACHE_FILE, LOCK_FILE, SAMPLES_FILE} & found or (CONFIG_FILE in found and (METRICS_FILE in found or folder in with_checkpoints))
    }


def _is_of_system(below: PurePath) -> bool:
    return any(part.lower() in _SYSTEM for part in below.parts)
