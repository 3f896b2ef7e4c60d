"""How many tokens texts have: a tokenizer is opened for the first text that it has not counted, and what was counted stays known."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from functools import cache, lru_cache
from pathlib import Path
from typing import TypeVar

Tokenizer = TypeVar("Tokenizer")
_MOST_TEXTS = 20_000


def build_count(
    name: str, folder: Path, *, load: Callable[[], Tokenizer], count: Callable[[Tokenizer, Sequence[str]], list[int]]
) -> Callable[[Sequence[str]], list[int]]:
    """`count` with the tokenizer of a folder, each text once in a process as long as the tokenizer's files are the same.

    `name`: of what is counted, where several parts read the same files each in its own way. Raises what `load` raises, when a text is new.
    """
    known, open_once = _keep_counts(name, folder, _read_stamps(folder)), cache(load)

    def run(texts: Sequence[str]) -> list[int]:
        fresh = [text for text in dict.fromkeys(texts) if text not in known]
        found = dict(zip(fresh, count(open_once(), fresh), strict=True)) if fresh else {}
        if len(known) + len(found) <= _MOST_TEXTS:
            known.update(found)
        return [found[text] if text in found else known[text] for text in texts]

    return run


@lru_cache(maxsize=8)
def _keep_counts(name: str, folder: Path, stamps: tuple[tuple[str, int, int], ...]) -> dict[str, int]:
    return {}


def _read_stamps(folder: Path) -> tuple[tuple[str, int, int], ...]:
    """Names, sizes and times of the files in a folder: others are other files."""
    states = ((file.name, file.stat()) for file in sorted(folder.iterdir())) if folder.is_dir() else ()
    return tuple((name, state.st_size, state.st_mtime_ns) for name, state in states)
