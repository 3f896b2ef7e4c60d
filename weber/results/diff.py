"""Two adapters beside each other, as files or as runs."""

from __future__ import annotations

from pathlib import Path

from weber.adapters.compare import Comparison, compare, list_changes, list_model_changes
from weber.adapters.files import AdapterFile, load_adapter
from weber.adapters.lycoris_files import is_lycoris, load_lycoris
from weber.errors import ConfigError
from weber.progress import Progress
from weber.results.bases import find_architecture, find_pairings, open_base
from weber.results.runs import find_adapter


def diff(first: Path, second: Path, *, base: str | None, progress: Progress) -> Comparison:
    """Which layers of two adapters differ, and by how much. `base`: their model, for kinds whose change depends on it.

    Raises ConfigError where there is no such file, AdapterError where they are for different models.
    """
    paths = [find_file(place) for place in (first, second)]
    adapters = [load_any(path) for path in paths]
    find_pairings(*adapters)
    if base is None:
        return compare(list_changes(adapters[0]), list_changes(adapters[1]), progress=progress)
    model = open_base(paths[0], base, architecture=find_architecture(adapters[0]))
    reads = [list_model_changes(adapter, model.weights) for adapter in adapters]
    return compare(reads[0], reads[1], progress=progress)


def load_any(path: Path) -> AdapterFile:
    """An adapter of any kind that weber reads. Raises AdapterError."""
    return load_lycoris(path) if is_lycoris(path) else load_adapter(path)


def find_file(place: Path) -> Path:
    """The adapter file that a path means: the file itself, or that of a run folder or a checkpoint. Raises ConfigError."""
    if not place.expanduser().exists():
        raise ConfigError("There is no such adapter file.", got=str(place), expected="a file or a run folder", fix="correct it")
    return find_adapter(place)

