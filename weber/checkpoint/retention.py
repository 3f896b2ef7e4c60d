"""Which checkpoints are kept, and what becomes of those that nobody is to go on from."""

from __future__ import annotations

import shutil
from pathlib import Path

from weber.checkpoint.save import list_checkpoints

RUINED = "-not-finite"
"""Behind the name of a checkpoint after which the next step failed; no run goes on from it unless it is named."""
LEFT = "-left"
"""Behind the name of a checkpoint that is later than the one that a run was told to go on from."""


def save_space(run_folder: Path, *, keep_last: int | None, keep_every: int | None = None) -> list[Path]:
    """Delete all but the newest `keep_last` checkpoints, and what a killed run has left; returns the checkpoints that were deleted.

    None: all are kept. Those of every `keep_every` steps are kept in any case. A half-deleted one cannot look whole.
    """
    older = [] if keep_last is None else list_checkpoints(run_folder)[:-keep_last]
    old = [folder for step, folder in older if keep_every is None or step % keep_every]
    for folder in old:
        doomed = folder.with_name(f".{folder.name}.deleted")
        shutil.rmtree(doomed, ignore_errors=True)
        folder.replace(doomed)
    for pattern in (".checkpoint-*.deleted", ".checkpoint-*.partial"):
        for doomed in run_folder.glob(pattern):
            shutil.rmtree(doomed, ignore_errors=True)
    return old


def put_aside(folder: Path, ending: str) -> Path:
    """Rename a checkpoint so that no run goes on from it by itself; returns where it is. It takes the place of an earlier one."""
    aside = folder.with_name(folder.name + ending)
    shutil.rmtree(aside, ignore_errors=True)
    return folder.replace(aside)


def list_aside(run_folder: Path, ending: str) -> list[Path]:
    """The checkpoints that were put aside with that ending, oldest first."""
    return sorted(run_folder.glob(f"checkpoint-*{ending}"))
