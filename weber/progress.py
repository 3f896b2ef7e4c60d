"""How long work reports where it is: a callable, so that no room needs to know who is watching."""

from __future__ import annotations

from collections.abc import Callable

Progress = Callable[[str, int, int], None]
"""Called with what is being done, how much of it is done, and how much there is in all. Drawn by `track/progress.py`."""


def ignore_progress(what: str, done: int, total: int) -> None:
    """Watch nothing."""
