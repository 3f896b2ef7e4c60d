"""How many checkpoints are kept."""

from __future__ import annotations

import shutil
from pathlib import Path

from weber.checkpoint.save import list_checkpoints


def save_space(run_folder: Path, *, keep_last: int) -> list[Path]:
    """Delete all but the newest `keep_last` checkpoints, and what a killed run has left; returns the checkpoints that were deleted.

    A half-deleted one cannot look whole.
    """
    old = [folder for _, folder in list_checkpoints(run_folder)[:-keep_last]]
    for folder in old:
        doomed = folder.with_name(f".{folder.name}.deleted")
        shutil.rmtree(doomed, ignore_errors=True)
        folder.replace(doomed)
    for pattern in (".checkpoint-*.deleted", ".checkpoint-*.partial"):
        for doomed in run_folder.glob(pattern):
            shutil.rmtree(doomed, ignore_errors=True)
    return old
