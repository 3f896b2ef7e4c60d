"""Progress for a person: few plain lines off a terminal, a bar on one."""

from __future__ import annotations

import io

import pytest
from rich.console import Console

from weber.track.progress import Watcher, build_console


def _build(*, terminal: bool) -> tuple[Watcher, io.StringIO]:
    buffer = io.StringIO()
    return Watcher(Console(file=buffer, force_terminal=terminal, width=160, color_system=None)), buffer


def test_plain_lines_off_a_terminal() -> None:
    watcher, buffer = _build(terminal=False)
    with watcher.shown():
        for done in range(1001):
            watcher.report("encoding pictures", done, 1000)
        watcher.write("Encoded 1000 latents.")
        watcher.report("training", 1, 2, "loss 0.5000")
        watcher.report("training", 2, 2, "loss 0.4000")
    assert buffer.getvalue().splitlines() == [
        "encoding pictures: 1000/1000",
        "Encoded 1000 latents.",
        "training: 1/2 loss 0.5000",
        "training: 2/2 loss 0.4000",
    ]


def test_long_work_shows_a_line_from_time_to_time(monkeypatch: pytest.MonkeyPatch) -> None:
    now = 0.0
    monkeypatch.setattr("time.monotonic", lambda: now)
    watcher, buffer = _build(terminal=False)
    for done in range(101):
        watcher.report("training", done, 100)
        now += 1.0
    numbers = [int(line.split(": ")[1].split("/")[0]) for line in buffer.getvalue().splitlines()]
    assert numbers == [10, 20, 30, 40, 50, 60, 70, 80, 90, 100]


def test_a_task_may_come_again() -> None:
    watcher, buffer = _build(terminal=False)
    for _ in range(2):
        for done in range(3):
            watcher.report("painting", done, 2)
    assert buffer.getvalue().splitlines() == ["painting: 2/2", "painting: 2/2"]


def test_a_reader_that_goes_away_is_no_reason_to_stop() -> None:
    """As a terminal that is closed, or `weber train ... 2>&1 | head`."""

    class Closed(io.StringIO):
        def write(self, text: str) -> int:
            raise BrokenPipeError(32, "Broken pipe")

        def flush(self) -> None:
            raise OSError(5, "Input/output error")

    watcher = Watcher(build_console(Closed()))
    with watcher.shown():
        watcher.write("Stopping.")
        watcher.report("training", 1, 1)


def test_nothing_to_do_says_nothing() -> None:
    watcher, buffer = _build(terminal=False)
    watcher.report("encoding captions", 0, 0)
    assert buffer.getvalue() == ""


def test_lines_are_printed_as_they_are() -> None:
    """No markup, no colors, no wrapping: they hold paths and commands that a person copies."""
    watcher, buffer = _build(terminal=False)
    line = "weber train '/data/[bold]run[/bold]/config.toml' --resume " + "x" * 300
    watcher.write(line)
    assert buffer.getvalue() == line + "\n"


def test_a_bar_on_a_terminal() -> None:
    watcher, buffer = _build(terminal=True)
    with watcher.shown() as shown:
        assert shown is watcher
        for done in range(4):
            watcher.report("training", done, 8, "loss 0.1234")
        watcher.report("painting", 1, 2)
        watcher._bars.refresh()
        watcher.write("Saved checkpoint-000003.")
    text = buffer.getvalue()
    for part in ("training", "3/8", "loss 0.1234", "painting", "1/2", "Saved checkpoint-000003."):
        assert part in text
    assert "training: " not in text


def test_a_finished_task_leaves_the_screen() -> None:
    watcher, buffer = _build(terminal=True)
    with watcher.shown():
        watcher.report("encoding pictures", 5, 5)
        buffer.seek(0)
        buffer.truncate()
        watcher._bars.refresh()
        assert "encoding pictures" not in buffer.getvalue()
        watcher.report("encoding pictures", 1, 7)
        watcher._bars.refresh()
        assert "1/7" in buffer.getvalue()
