"""What is handed on to a tracker of another project: in order, once, and without a run waiting for it or ending with it."""

from __future__ import annotations

import threading
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import pytest

from weber.track import relay
from weber.track.relay import Relay


class Kept:
    """A service that keeps what it is told, and fails where it is told to."""

    def __init__(self, *, fails: str = "", gate: threading.Event | None = None) -> None:
        self.told: list[Any] = []
        self.fails, self.gate = fails, gate
        if fails == "open":
            raise OSError("no route to host\nmore")

    def write(self, step: int, numbers: Mapping[str, Any]) -> None:
        if self.gate is not None:
            self.gate.wait()
        if self.fails == "write":
            raise RuntimeError("refused.")
        self.told.append((step, dict(numbers)))

    def write_pictures(self, step: int, pictures: Mapping[Path, str]) -> None:
        self.told.append((step, list(pictures.values())))

    def close(self) -> None:
        self.told.append("closed")


def test_all_of_it_in_order_and_closed() -> None:
    service = Kept()
    one = Relay("kept", lambda: service, last_step=0)
    one.write_pictures(0, {Path("a.png"): "a fox"})
    for step in range(1, 4):
        one.write(step, {"loss": step})
    one.finish()
    assert one.close() is None
    assert service.told == [(0, ["a fox"]), (1, {"loss": 1}), (2, {"loss": 2}), (3, {"loss": 3}), "closed"]


def test_what_a_killed_run_has_sent_is_not_sent_again() -> None:
    service = Kept()
    one = Relay("kept", lambda: service, last_step=5)
    for step in range(4, 8):
        one.write(step, {})
    one.write_pictures(4, {Path("a.png"): "a fox"})
    one.finish()
    assert one.close() is None
    assert [told[0] for told in service.told[:-1]] == [6, 7]


def test_numbers_are_those_of_when_they_were_written() -> None:
    gate, numbers = threading.Event(), {"loss": 1.0}
    service = Kept(gate=gate)
    one = Relay("kept", lambda: service, last_step=0)
    one.write(1, numbers)
    numbers["loss"] = 9.0
    gate.set()
    one.finish()
    assert one.close() is None and service.told[0] == (1, {"loss": 1.0})


@pytest.mark.parametrize(("fails", "reason"), [("open", "no route to host"), ("write", "refused")])
def test_what_fails_is_said_once_at_the_end(fails: str, reason: str) -> None:
    one = Relay("kept", lambda: Kept(fails=fails), last_step=0)
    for step in range(1, 4):
        one.write(step, {})
    one.finish()
    assert one.close() == f"kept has not got all of the run: {reason}. All of it is in metrics.jsonl."


def test_one_that_hangs_is_left_behind(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(relay, "CLOSING_SECONDS", 0.05)
    monkeypatch.setattr(relay, "MOST_WAITING", 3)
    gate = threading.Event()
    one, other = (Relay("kept", lambda: Kept(gate=gate), last_step=0) for _ in range(2))
    one.write(1, {})
    for step in range(1, 9):
        other.write(step, {})
    for each, reason in ((one, "it has not answered in time"), (other, "it is slower than the run")):
        each.finish()
        assert each.close() == f"kept has not got all of the run: {reason}. All of it is in metrics.jsonl."
    gate.set()
