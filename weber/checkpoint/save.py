"""Checkpoints: folders that appear whole or not at all, with a manifest of sizes and hashes."""

from __future__ import annotations

import hashlib
import json
import os
import re
import shlex
import shutil
from collections.abc import Callable, Mapping
from pathlib import Path

from safetensors import SafetensorError

from weber.errors import CheckpointError

CONFIG_NAME = "config.toml"
"""The settings of a run, in its folder."""
MANIFEST = "manifest.json"
NAME = re.compile(r"checkpoint-(\d{6,})")
Write = Callable[[Path], None]


def save_checkpoint(run_folder: Path, step: int, *, files: Mapping[str, Write], ending: str = "") -> Path:
    """Write `checkpoint-<step>`: every file by its function into a folder beside, then the manifest, then one rename.

    The same state gives the same bytes. Raises CheckpointError where the disk refuses; earlier checkpoints stay as they are. Later ones
    are deleted: a run goes on from its newest valid checkpoint, so they are damaged, and would count as the newest to be kept. One with
    an `ending` of its name is none that a run goes on from by itself.
    """
    final = run_folder / (build_name(step) + ending)
    partial = run_folder / f".{final.name}.partial"
    try:
        shutil.rmtree(partial, ignore_errors=True)
        partial.mkdir(parents=True)
        for name, write in files.items():
            write(partial / name)
        manifest = {name: hash_file(partial / name) for name in sorted(files)}
        (partial / MANIFEST).write_text(json.dumps(manifest, indent=1, sort_keys=True) + "\n", encoding="utf-8")
        for file in partial.iterdir():
            _sync(file)
        _sync(partial)
        if final.exists():
            shutil.rmtree(final)
        partial.replace(final)
        _sync(run_folder)
    except (OSError, SafetensorError) as error:
        raise CheckpointError(
            f"The checkpoint of step {step} could not be written; earlier ones are untouched.",
            got=f"{error}, while writing {final}",
            fix=_propose_place(run_folder),
        ) from error
    finally:
        shutil.rmtree(partial, ignore_errors=True)
    for later, folder in [] if ending else list_checkpoints(run_folder):
        if later > step:
            shutil.rmtree(folder, ignore_errors=True)
    return final


def build_name(step: int) -> str:
    """Name of the checkpoint of a step."""
    return f"checkpoint-{step:06d}"


def _propose_place(run_folder: Path) -> str:
    """How to go on where the disk is full: on this disk, or on another one."""
    checkpoints, command = list_checkpoints(run_folder), f"weber train {shlex.quote(str(run_folder / CONFIG_NAME))}"
    fix = f"free space on that disk, then: {command} --resume"
    if not checkpoints:
        return fix
    _, latest = checkpoints[-1]
    return f"{fix}; or go on on another disk: {command} output.folder=/another/disk/run --resume {shlex.quote(str(latest))}"


def hash_file(file: Path) -> dict[str, int | str]:
    """Size and hash as the manifest holds them."""
    with file.open("rb") as stream:
        digest = hashlib.file_digest(stream, lambda: hashlib.blake2b(digest_size=16)).hexdigest()
    return {"bytes": file.stat().st_size, "blake2b": digest}


def list_checkpoints(run_folder: Path) -> list[tuple[int, Path]]:
    """(step, folder) of every finished checkpoint, oldest first."""
    found = [(int(match[1]), path) for path in run_folder.glob("checkpoint-*") if (match := NAME.fullmatch(path.name))]
    return sorted(found)


def _sync(path: Path) -> None:
    if path.is_dir():
        if os.name == "posix":  # Windows cannot fsync a folder
            descriptor = os.open(path, os.O_RDONLY)
            try:
                os.fsync(descriptor)
            finally:
                os.close(descriptor)
    else:
        with path.open("r+b") as stream:
            os.fsync(stream.fileno())
