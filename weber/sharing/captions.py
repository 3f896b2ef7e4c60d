"""The captions that a run has learned, some of them: kept in its folder, and on its page where that is asked for."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

from weber.data.pictures import Pictures

CAPTIONS = "captions.txt"
"""File of a run folder, a caption in each line."""
_MOST, _LOOKED_AT = 100, 4096


def save_captions(pictures: Pictures, run_folder: Path) -> None:
    """Keep the first different captions of the pictures that are learned."""
    parts = [part.captions for part in pictures.parts if not part.shared.is_regularization]
    found = dict.fromkeys(" ".join(text.split()) for texts in parts for text in texts.walk(0, min(len(texts), _LOOKED_AT)))
    (run_folder / CAPTIONS).write_text("".join(f"{text}\n" for text in list(found)[:_MOST] if text), encoding="utf-8")


def read_captions(run_folder: Path) -> Sequence[str]:
    """Those that were kept. None of a run that is older than the file."""
    path = run_folder / CAPTIONS
    return path.read_text(encoding="utf-8").splitlines() if path.is_file() else []
