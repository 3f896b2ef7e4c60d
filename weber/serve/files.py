"""Files of settings below the roots."""

from __future__ import annotations

import os
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

from weber.config.load import is_own
from weber.data.left_out import CACHE_FILE, CHECKPOINT_START, LOCK_FILE, METRICS_FILE
from weber.errors import ConfigError
from weber.serve.paths import resolve_path, shorten
from weber.serve.site import Site

_MOST_FILES, _MOST_FOLDERS, _DEEPEST = 200, 5000, 6
_OF_RUNS = {METRICS_FILE, LOCK_FILE, CACHE_FILE}
_LEFT_OUT = {"node_modules", "venv", "__pycache__", "site-packages"}


@dataclass(frozen=True)
class SettingsFile:
    """A file of settings by the name that pages have for it, and when it was changed."""

    name: str
    changed: float


def find_file(site: Site, text: str) -> Path:
    """The file of settings that a text names. Raises ConfigError for what is none."""
    path = resolve_path(site, text)
    if path.suffix != ".toml" or path.is_dir():
        raise ConfigError("Settings are in a TOML file.", got=path.name, expected="a name such as run.toml", fix="name the file")
    return path


def find_root(site: Site, path: Path) -> Path:
    """The root that a file is in: where `weber` is started for it, so that relative paths in it are seen from there."""
    return next(root for root in site.roots if path.is_relative_to(root))


def list_settings_files(site: Site) -> list[SettingsFile]:
    """Those below the roots, the latest first; what finished runs keep is not among them."""
    found: dict[Path, float] = {}
    for root in site.roots:
        for path in _walk(root, home=site.home):
            if len(found) < _MOST_FILES and is_own(path):
                found[path] = path.stat().st_mtime
    return [SettingsFile(shorten(site, path), changed) for path, changed in sorted(found.items(), key=lambda one: -one[1])]


def _walk(root: Path, *, home: Path) -> Iterator[Path]:
    """The TOML files below a folder, without those of runs and of what is hidden."""
    num_folders = 0
    for folder, folders, files in os.walk(root):
        num_folders += 1
        depth = len(Path(folder).relative_to(root).parts)
        if _OF_RUNS & set(files) or num_folders > _MOST_FOLDERS or depth >= _DEEPEST:
            folders.clear()
        if _OF_RUNS & set(files):
            continue
        folders[:] = sorted(one for one in folders if not _is_left_out(one) and Path(folder, one) != home)
        yield from (Path(folder, one) for one in sorted(files) if one.endswith(".toml"))


def _is_left_out(name: str) -> bool:
    return name.startswith((".", CHECKPOINT_START)) or name in _LEFT_OUT
