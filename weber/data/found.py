"""The files of a set as they lie there: in its folder, and in those of its references and masks. Nothing is opened."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from weber.config.data import DataConfig
from weber.config.elsewhere import build_absolute
from weber.data.backends.backend import Backend, Listing
from weber.data.beside import Beside
from weber.data.files import Files, sort_files
from weber.data.left_out import leave_out


class Folders:
    """The folders that a set names beside its own."""

    def __init__(self, config: DataConfig, *, files: Backend, own: Sequence[Path]) -> None:
        def read(kind: str, folder: Path) -> Beside:
            return Beside(kind, folder, files=files, recursive=config.recursive, own=own)

        self.references = [read("reference", folder) for folder in config.conditioning]
        self.mask = None if config.masks is None else read("mask", config.masks)
        self.loss_mask = None if config.loss_masks is None else read("loss mask", config.loss_masks)

    @property
    def all(self) -> list[Beside]:
        """All of them."""
        return [*self.references, *(one for one in (self.mask, self.loss_mask) if one is not None)]


@dataclass(frozen=True)
class Found:
    """The files of a set (`home`) and what each of them is, folders beside them, and names of weber's own folders that were left out."""

    home: Listing
    files: Files
    beside: Folders
    own: Sequence[str]

    @property
    def folder(self) -> Path:
        """The set's own."""
        return self.home.folder

    @property
    def listings(self) -> list[Listing]:
        """Of all folders."""
        return [self.home, *(one.listing for one in self.beside.all)]


def find_home(config: DataConfig) -> Path:
    """The set's folder from the root, or that of its table: names of pictures are seen from there."""
    if config.path is not None:
        return build_absolute(config.path)
    assert config.metadata is not None
    return build_absolute(config.metadata).parent


def find_files(config: DataConfig, files: Backend, *, own: Sequence[Path] = ()) -> Found:
    """List the folders of a set.

    Folders of weber's own are left out: `own`, and what looks like one. Raises DataError for a folder that cannot be listed.
    """
    folder = find_home(config)
    listed = files.list(folder, recursive=config.recursive) if config.hub is None and config.path is not None else Listing(folder, [], [])
    kept, beside = leave_out(listed, own=own), Folders(config, files=files, own=own)
    starts = tuple(
        f"{one.folder.relative_to(folder).as_posix()}/"
        for one in beside.all
        if one.folder != folder and one.folder.is_relative_to(folder)
    )
    names = kept.files.names
    home = kept.files.choose([place for place, name in enumerate(names) if not name.startswith(starts)]) if starts else kept.files
    return Found(home, sort_files(home, files), beside, kept.own)
