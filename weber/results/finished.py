"""The finished results of a run: new ones take the place of old ones when all of them are whole, and older ones are kept until then."""

from __future__ import annotations

import re
import shutil
from collections.abc import Sequence
from contextlib import suppress
from pathlib import Path

from weber.config.run import RunConfig
from weber.results.files import read_model_facts
from weber.results.formats import list_finished

STAGED = ".finished.partial"
"""Subfolder of a run in which its results are written, before they are moved to their place."""
_OLDER = re.compile(r"result-(\d{6,})")


def put_aside(run_folder: Path, configs: Sequence[RunConfig], *, step: int) -> list[Path]:
    """Move finished results of other steps than this one to `result-<their step>`, so that nobody takes them for those of the run as it
    goes on; returns where. `configs`: settings of the run that gave them their names."""
    moved = []
    for path in _list_named(run_folder, configs):
        steps = _read_steps(path) if path.exists() else step
        if steps == step:
            continue
        folder = run_folder / f"result-{steps:06d}"
        folder.mkdir(exist_ok=True)
        _replace(path, folder / path.name)
        moved.append(folder / path.name)
    return moved


def publish(run_folder: Path, configs: Sequence[RunConfig], *, written: Sequence[Path]) -> list[Path]:
    """Move results that were written into `STAGED` to their place, and delete the older ones of the same names; returns where."""
    staged = run_folder / STAGED
    for path in sorted(staged.iterdir()):
        _replace(path, run_folder / path.name)
    staged.rmdir()
    for folder in run_folder.glob("result-*"):
        if _OLDER.fullmatch(folder.name):
            for path in _list_named(folder, configs):
                if (run_folder / path.name).exists():
                    _remove(path)
            with suppress(OSError):  # something is left that has no newer one
                folder.rmdir()
    return [run_folder / path.relative_to(staged) for path in written]


def clear_staged(run_folder: Path) -> Path:
    """The folder for new results, without what a run that was killed has left in it."""
    staged = run_folder / STAGED
    _remove(staged)
    staged.mkdir(parents=True)
    return staged


def _list_named(folder: Path, configs: Sequence[RunConfig]) -> list[Path]:
    return list(dict.fromkeys(path for config in configs for path in list_finished(config, folder)))


def _read_steps(path: Path) -> int:
    """The step that a result is of; 0 where it does not say."""
    places = [path] if path.is_file() else sorted({file.parent for file in path.rglob("*.safetensors")})
    steps = next((read_model_facts(place).get("steps") for place in places), None)
    return steps if isinstance(steps, int) else 0


def _replace(path: Path, target: Path) -> None:
    """Put a file or folder in the place of another one."""
    old = target.with_name(f".{target.name}.old")
    _remove(old)
    if target.is_dir():
        target.replace(old)
    path.replace(target)
    _remove(old)


def _remove(path: Path) -> None:
    if path.is_dir():
        shutil.rmtree(path)
    else:
        path.unlink(missing_ok=True)
