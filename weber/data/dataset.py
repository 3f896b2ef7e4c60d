"""All that a run learns from, and what is held out."""

from __future__ import annotations

from dataclasses import dataclass, field
from pathlib import Path

from weber.data.backends.backend import Backend
from weber.data.backends.sources import LOCAL
from weber.data.pictures import Pictures
from weber.data.set_aside import SetAside


@dataclass(frozen=True, slots=True)
class Dataset:
    """All pictures of all sets, in the order of the sets and then of their paths below the set's folder."""

    examples: Pictures
    set_aside: tuple[SetAside, ...]
    num_opened: int
    """Picture, reference and mask files that the index did not know as they are, and that had to be opened."""
    notes: tuple[str, ...] = ()
    """What a person should know of the sets, in sentences."""
    files: Backend = LOCAL
    """Where the files are read."""
    kept: tuple[Path, ...] = ()
    """The files in which the sets are kept as columns."""
    held_out: Pictures = field(default_factory=lambda: Pictures([]))
    """Pictures that are never learned, likewise."""
