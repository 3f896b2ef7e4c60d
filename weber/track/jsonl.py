"""`metrics.jsonl`: one line of numbers per step, always."""

from __future__ import annotations

import json
from collections.abc import Mapping
from pathlib import Path
from types import TracebackType

METRICS_NAME = "metrics.jsonl"
Numbers = Mapping[str, float | int | str]


class JsonlTracker:
    """Appends to `metrics.jsonl`. Lines of steps after `done_steps`, left by a run that was killed, are dropped first; `last_step` is the
    last that was there."""

    def __init__(self, run_folder: Path, *, done_steps: int) -> None:
        self.path = run_folder / METRICS_NAME
        found = _read_lines(self.path)
        self.last_step = json.loads(found[-1])["step"] if found and done_steps > 0 else 0
        kept = [line for line in found if json.loads(line)["step"] <= done_steps]
        temporary = self.path.with_name(f".{self.path.name}.tmp")
        temporary.write_text("".join(line + "\n" for line in kept), encoding="utf-8")
        temporary.replace(self.path)
        self._stream = self.path.open("a", encoding="utf-8")

    def write(self, step: int, numbers: Numbers) -> None:
        """Record what a step measured."""
        self._stream.write(json.dumps({"step": step, **numbers}) + "\n")
        self._stream.flush()

    def write_pictures(self, step: int, pictures: Mapping[Path, str]) -> None:
        """Nothing: they are in the run folder."""

    def __enter__(self) -> JsonlTracker:
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None) -> None:
        self._stream.close()


def read_metrics(run_folder: Path) -> list[dict[str, float]]:
    """What was measured of each step of a run so far."""
    return [json.loads(line) for line in _read_lines(run_folder / METRICS_NAME)]


def _read_lines(path: Path) -> list[str]:
    """The whole lines; what follows a damaged one is what a killed run was writing."""
    kept: list[str] = []
    if path.is_file():
        for line in path.read_text(encoding="utf-8", errors="replace").splitlines():
            try:
                int(json.loads(line)["step"])
            except (ValueError, TypeError, KeyError):
                break
            kept.append(line)
    return kept
