"""A run that has collapsed while all of its numbers stayed finite is told from one that learns."""

from __future__ import annotations

import json
import random
from collections.abc import Sequence
from pathlib import Path

import pytest

from weber.track.health import find_collapse


def write(folder: Path, losses: Sequence[float], norms: Sequence[float]) -> Path:
    lines = [{"step": step, "loss": loss, "grad_norm": norm} for step, (loss, norm) in enumerate(zip(losses, norms, strict=True), 1)]
    (folder / "metrics.jsonl").write_text("".join(json.dumps(line) + "\n" for line in lines))
    return folder


@pytest.mark.parametrize(
    ("losses", "norms", "words"),
    [
        ([0.5] * 50 + [6.0] * 50, [0.1] * 100, ["12 times", "0.5 at the start"]),
        ([0.5] + [6.0] * 99, [0.1] * 100, ["12 times"]),  # in its first step
        ([0.5] * 100, [0.1] * 50 + [0.0] * 50, ["gradients are gone"]),
        ([0.5] * 50 + [9.0] * 50, [0.1] * 50 + [1e-9] * 50, ["18 times", "gradients are gone"]),
    ],
)
def test_a_collapse_is_told(tmp_path: Path, losses: list[float], norms: list[float], words: list[str]) -> None:
    found = find_collapse(write(tmp_path, losses, norms))
    assert found is not None and "lower optim.lr" in found
    assert all(word in found for word in words)


def test_a_run_that_learns_is_left_alone(tmp_path: Path) -> None:
    """Losses of single pictures differ by more than ten times, and the first one may be the smallest of all."""
    draws = random.Random(0)
    losses = [0.02] + [draws.choice([0.02, 0.1, 0.4, 1.3]) for _ in range(99)]
    assert find_collapse(write(tmp_path, losses, [draws.uniform(0.01, 1) for _ in losses])) is None
    assert find_collapse(write(tmp_path, [0.1, 9.0], [1.0, 1.0])) is None  # too short to tell
    assert find_collapse(write(tmp_path, [0.0] * 20, [0.3] * 20)) is None
    assert find_collapse(tmp_path / "nothing") is None
