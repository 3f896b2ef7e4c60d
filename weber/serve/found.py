"""Which run folders there are below the roots, whoever made them."""

from __future__ import annotations

import os
import time
from collections.abc import Iterator
from pathlib import Path

from weber.checkpoint.save import CONFIG_NAME
from weber.results.condition import read_condition
from weber.results.runs import is_run
from weber.serve.queue import Queue
from weber.serve.site import Site
from weber.track.record import STATUS_NAME

_DEPTH, _MOST_ENTRIES, _SECONDS = 4, 50_000, 2.0
_SKIPPED = ("checkpoint-", "result-", "pictures", "samples", "transformer", "tensorboard", "node_modules", "__pycache__")


class Finder:
    """Looks for run folders, anew every few seconds."""

    def __init__(self, site: Site, queue: Queue) -> None:
        self._site, self._queue = site, queue
        self._looked, self._found = float("-inf"), list[Path]()

    def list(self) -> list[Path]:
        """The run folders, those that were at work last first; what the queue has trained, too."""
        if time.monotonic() - self._looked > _SECONDS:
            self._found = [folder for root in self._site.roots for folder in _walk(root, self._site.home)]
            self._looked = time.monotonic()
        there = [folder for folder in dict.fromkeys([*self._queue.list_runs(), *self._found]) if is_run_folder(folder)]
        return sorted(there, key=lambda folder: -read_condition(folder).time)


def is_run_folder(folder: Path) -> bool:
    """Whether a run has begun in a folder."""
    return (folder / CONFIG_NAME).is_file() and ((folder / STATUS_NAME).is_file() or is_run(folder))


def _walk(root: Path, home: Path) -> Iterator[Path]:
    """Every folder with a run, to a few levels below a root; no more entries are read than a page can wait for."""
    level, num_entries = [root], 0
    for _ in range(_DEPTH + 1):
        inner: list[Path] = []
        for folder in level:
            if is_run_folder(folder):
                yield folder
                continue
            num, below = _list_folders(folder)
            num_entries += num
            inner += [one for one in below if one != home]
            if num_entries > _MOST_ENTRIES:
                return
        level = inner


def _list_folders(folder: Path) -> tuple[int, list[Path]]:
    """How many entries a folder has, and which of them are folders that may have runs in them."""
    try:
        with os.scandir(folder) as entries:
            found = list(entries)
    except OSError:
        return 0, []
    plain = [one for one in found if not one.name.startswith((".", *_SKIPPED)) and one.is_dir(follow_symlinks=False)]
    return len(found), [Path(one.path) for one in plain]
