"""`metrics.jsonl`: a line per step, and after a kill exactly the lines of the steps that count."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from weber.track.jsonl import JsonlTracker


def _read(folder: Path) -> list[dict[str, float]]:
    return [json.loads(line) for line in (folder / "metrics.jsonl").read_text(encoding="utf-8").splitlines()]


def _write(folder: Path, *, start: int, stop: int, done_steps: int, loss: float = 0.1) -> None:
    with JsonlTracker(folder, done_steps=done_steps) as tracker:
        for step in range(start, stop + 1):
            tracker.write(step, {"loss": loss * step, "lr": 1e-4, "epoch": 0})


def test_a_line_per_step_that_is_there_at_once(tmp_path: Path) -> None:
    with JsonlTracker(tmp_path, done_steps=0) as tracker:
        tracker.write(1, {"loss": 0.5, "lr": 1e-4})
        assert _read(tmp_path) == [{"step": 1, "loss": 0.5, "lr": 1e-4}]
        tracker.write(2, {"loss": 0.25, "note": "Ünïcode"})
        assert _read(tmp_path)[1] == {"step": 2, "loss": 0.25, "note": "Ünïcode"}


def test_a_resumed_run_goes_on_after_its_checkpoint(tmp_path: Path) -> None:
    _write(tmp_path, start=1, stop=9, done_steps=0)
    _write(tmp_path, start=7, stop=8, done_steps=6, loss=0.3)
    lines = _read(tmp_path)
    assert [line["step"] for line in lines] == [1, 2, 3, 4, 5, 6, 7, 8]
    assert [line["loss"] for line in lines] == [0.1 * step for step in range(1, 7)] + [0.3 * step for step in (7, 8)]


def test_a_new_run_starts_anew(tmp_path: Path) -> None:
    _write(tmp_path, start=1, stop=3, done_steps=0)
    _write(tmp_path, start=1, stop=1, done_steps=0)
    assert [line["step"] for line in _read(tmp_path)] == [1]


def test_kept_lines_keep_their_bytes(tmp_path: Path) -> None:
    _write(tmp_path, start=1, stop=6, done_steps=0, loss=1 / 3)
    before = (tmp_path / "metrics.jsonl").read_bytes()
    _write(tmp_path, start=7, stop=6, done_steps=6)
    assert (tmp_path / "metrics.jsonl").read_bytes() == before


@pytest.mark.parametrize("cut", range(1, 48, 3))
def test_a_half_written_last_line_is_dropped(tmp_path: Path, cut: int) -> None:
    _write(tmp_path, start=1, stop=6, done_steps=0)
    path = tmp_path / "metrics.jsonl"
    lines = path.read_bytes().splitlines(keepends=True)
    path.write_bytes(b"".join(lines[:5]) + lines[5][:cut])
    _write(tmp_path, start=6, stop=6, done_steps=5, loss=0.7)
    assert [line["step"] for line in _read(tmp_path)] == [1, 2, 3, 4, 5, 6]
    assert _read(tmp_path)[5]["loss"] == 0.7 * 6


@pytest.mark.parametrize("tail", [b"\0" * 30, b"\xff\xfe", b"[1, 2]\n", b'{"loss": 1}\n', b"5\n"])
def test_other_damage_at_the_end_is_dropped(tmp_path: Path, tail: bytes) -> None:
    """What a power cut may leave."""
    _write(tmp_path, start=1, stop=3, done_steps=0)
    with (tmp_path / "metrics.jsonl").open("ab") as file:
        file.write(tail)
    _write(tmp_path, start=4, stop=4, done_steps=3)
    assert [line["step"] for line in _read(tmp_path)] == [1, 2, 3, 4]


def test_nothing_is_left_beside(tmp_path: Path) -> None:
    _write(tmp_path, start=1, stop=2, done_steps=0)
    assert [file.name for file in tmp_path.iterdir()] == ["metrics.jsonl"]
