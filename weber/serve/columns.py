"""A run's numbers as columns, read as they grow, and thinned to what a chart can show."""

from __future__ import annotations

import json
import math
from collections import OrderedDict
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from threading import Lock
from typing import Any

from weber.track.jsonl import METRICS_NAME, READINGS_NAME
from weber.track.scores import EMPTY, HELD_OUT, LEARNED, start_of_levels
from weber.track.signals import GRADIENT, LIKENESS, LOSS_AT, NOISE, UPDATE

MOST_POINTS = 1200
_SMOOTHING = 0.98
_MOST_KEPT = 8
"""Runs whose numbers stay in memory."""
_MEMORY = "peak_memory_bytes"
_OF_PICTURES = ("clip", "clip/least", "clip/most", "likeness/learned", "likeness/painted", "likeness/nearest", NOISE, LIKENESS)


@dataclass
class Columns:
    """The lines of one file, a list for each name: (steps, values). What is read stays; a file that was written anew is read anew."""

    file: Path
    columns: dict[str, tuple[list[int], list[float]]] = field(default_factory=dict)
    _place: int = 0
    _inode: int = 0

    def read(self) -> None:
        """Take in the lines that are new."""
        try:
            with self.file.open("rb") as stream:
                found = self.file.stat()
                if found.st_ino != self._inode or found.st_size < self._place:
                    self.columns, self._place, self._inode = {}, 0, found.st_ino
                stream.seek(self._place)
                data = stream.read()
        except OSError:
            self.columns, self._place, self._inode = {}, 0, 0
            return
        whole = data.rfind(b"\n") + 1
        self._place += whole
        for line in data[:whole].splitlines():
            self._take(line)

    def _take(self, line: bytes) -> None:
        try:
            found = json.loads(line)
            step = int(found["step"])
        except (ValueError, TypeError, KeyError):
            return
        for name, value in found.items():
            if name != "step" and isinstance(value, int | float) and math.isfinite(value):
                steps, values = self.columns.setdefault(name, ([], []))
                steps.append(step)
                values.append(value)


class Library:
    """The numbers of the runs that were looked at last."""

    def __init__(self) -> None:
        self._known: OrderedDict[Path, tuple[Columns, Columns]] = OrderedDict()
        self._lock = Lock()

    def list_charts(self, folder: Path) -> list[dict[str, Any]]:
        """The charts of a run: a title, the steps, and lines by their names."""
        with self._lock:
            if folder not in self._known:
                self._known[folder] = Columns(folder / METRICS_NAME), Columns(folder / READINGS_NAME)
            self._known.move_to_end(folder)
            metrics, readings = self._known[folder]
            while len(self._known) > _MOST_KEPT:
                self._known.popitem(last=False)
            metrics.read()
            readings.read()
            return [chart for chart in (*_chart_steps(metrics), *_chart_readings(readings)) if chart["x"]]


def _chart_steps(metrics: Columns) -> Iterator[dict[str, Any]]:
    """What each step measures."""
    columns = metrics.columns
    steps, losses = columns.get("loss", ([], []))
    yield _build_chart("loss", [("smoothed", steps, list(_smooth(losses))), ("each step", steps, losses)])
    for title, name, factor in (("learning rate", "lr", 1.0), ("norm of the gradients", "grad_norm", 1.0)):
        steps, values = columns.get(name, ([], []))
        yield _build_chart(title, [(title, steps, [factor * value for value in values])])
    steps, seconds = columns.get("seconds", ([], []))
    speeds = [1 / value if value > 0 else 0.0 for value in _smooth(seconds, 0.9)]
    yield _build_chart("steps per second", [("steps per second", steps, speeds)])
    steps, sizes = columns.get(_MEMORY, ([], []))
    yield _build_chart("memory in GB", [("memory", steps, [value / 1e9 for value in sizes])])
    steps, losses = columns.get("loss_regularization", ([], []))
    yield _build_chart("loss of regularization", [("smoothed", steps, list(_smooth(losses)))])


def _chart_readings(readings: Columns) -> Iterator[dict[str, Any]]:
    """What is measured now and then."""
    names = list(readings.columns)
    levels = start_of_levels(HELD_OUT)
    rows = (
        ("loss by noise level up to", {name: name.removeprefix(LOSS_AT) for name in names if name.startswith(LOSS_AT)}),
        ("loss on pictures that are held out", {HELD_OUT: "held out", LEARNED: "learned", EMPTY: "empty caption"}),
        ("loss held out, by noise level", {name: name.removeprefix(levels) for name in names if name.startswith(levels)}),
        ("gradients, by group of blocks", {name: name.removeprefix(GRADIENT) for name in names if name.startswith(GRADIENT)}),
        ("how far a step moves the weights", {name: name.removeprefix(UPDATE) for name in names if name.startswith(UPDATE)}),
        ("of painted pictures", {name: name for name in _OF_PICTURES}),
    )
    for title, wanted in rows:
        yield _build_chart(title, [(label, *readings.columns[name]) for name, label in wanted.items() if name in readings.columns])


def _smooth(values: Sequence[float], share: float = _SMOOTHING) -> Iterator[float]:
    """The running mean, in which early values do not weigh more than later ones."""
    total, weight = 0.0, 0.0
    for value in values:
        total, weight = share * total + (1 - share) * value, share * weight + (1 - share)
        yield total / weight


def _build_chart(title: str, lines: Sequence[tuple[str, Sequence[int], Sequence[float]]]) -> dict[str, Any]:
    """All lines over one column of steps, as uPlot takes them."""
    thinned = [(label, _thin(steps, values)) for label, steps, values in lines]
    x = sorted({step for _, points in thinned for step in points})
    return {"title": title, "x": x, "lines": [{"label": label, "y": [points.get(step) for step in x]} for label, points in thinned]}


def _thin(steps: Sequence[int], values: Sequence[float]) -> dict[int, float]:
    """Of many points the least and the most of each portion: no peak is lost."""
    if len(steps) <= MOST_POINTS:
        return dict(zip(steps, values, strict=True))
    size = -(-2 * len(steps) // MOST_POINTS)
    kept: dict[int, float] = {}
    for start in range(0, len(steps), size):
        portion = range(start, min(start + size, len(steps)))
        for place in sorted({min(portion, key=values.__getitem__), max(portion, key=values.__getitem__)}):
            kept[steps[place]] = values[place]
    kept[steps[-1]] = values[-1]
    return kept
