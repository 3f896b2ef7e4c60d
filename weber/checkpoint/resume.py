"""Finding the checkpoint to go on from: the latest one whose files are as they were written."""

from __future__ import annotations

import json
from dataclasses import dataclass
from pathlib import Path

from weber.checkpoint.save import MANIFEST, hash_file, list_checkpoints


@dataclass(frozen=True)
class Found:
    """The checkpoint to go on from, if any, and the damaged ones that were passed over, with reasons. `is_chosen`: it was asked for, and
    need not be the latest."""

    step: int
    folder: Path | None
    damaged: dict[Path, str]
    is_chosen: bool = False


def load_latest(run_folder: Path) -> Found:
    """Check checkpoints from the newest down and stop at the first valid one."""
    damaged: dict[Path, str] = {}
    for step, folder in reversed(list_checkpoints(run_folder)):
        reason = check_checkpoint(folder)
        if reason is None:
            return Found(step, folder, damaged)
        damaged[folder] = reason
    return Found(0, None, damaged)


def check_checkpoint(folder: Path) -> str | None:
    """Why a checkpoint cannot be used; None if every file has the size and hash of the manifest."""
    try:
        manifest = json.loads((folder / MANIFEST).read_text(encoding="utf-8"))
        names = list(manifest.keys())
    except OSError as error:
        return f"{MANIFEST} cannot be read ({error.strerror})"
    except (ValueError, AttributeError):
        return f"{MANIFEST} is not as it was written"
    for name in names:
        try:
            if hash_file(folder / name) != manifest[name]:
                return f"{name} is not as it was written"
        except OSError as error:
            return f"{name} cannot be read ({error.strerror})"
    return None if names else f"{MANIFEST} is empty"
