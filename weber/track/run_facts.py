"""What trackers are told of a run before its first step."""

from __future__ import annotations

import json
import secrets
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

_NOTE = "trackers.json"
_BYTES = 4


@dataclass(frozen=True)
class RunFacts:
    """`identifier`: under which it is gone on with elsewhere; `settings` by their sections; `summary`: of the plan. Steps after
    `done_steps` are to be done; those until `last_step` have been written by a run that was killed later than its last checkpoint."""

    folder: Path
    project: str
    name: str
    identifier: str
    settings: Mapping[str, object]
    summary: str
    done_steps: int
    last_step: int


def read_identifier(run_folder: Path, *, is_resumed: bool) -> str:
    """That of the run in the folder, if it is gone on with, else a new one; it is kept beside the run."""
    note = run_folder / _NOTE
    if is_resumed and note.is_file():
        return str(json.loads(note.read_text(encoding="utf-8"))["identifier"])
    identifier = secrets.token_hex(_BYTES)
    note.write_text(json.dumps({"identifier": identifier}) + "\n", encoding="utf-8")
    return identifier
