"""Signals become a wish; only a second one from a person acts at once; ignored ones stay so."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import threading
from pathlib import Path

import pytest

from weber.progress import ignore_progress
from weber.training.stop import SIGNALS, Stop, Stopped, stop_signals

HAS_HANGUP = hasattr(signal, "SIGHUP")


@pytest.mark.parametrize("number", SIGNALS)
def test_every_signal_is_a_wish(number: signal.Signals) -> None:
    stop, said = Stop(), []
    before = [signal.getsignal(one) for one in SIGNALS]
    with stop_signals(stop, write=said.append):
        assert not stop.asked
        signal.raise_signal(number)
        assert stop.asked and len(said) == 1
    assert [signal.getsignal(one) for one in SIGNALS] == before


PRESSED_TWICE = """
import signal
from weber.training.stop import Stop, stop_signals
with stop_signals(Stop(), write=print):
    signal.raise_signal(signal.SIGINT)
    print("goes on")
    signal.raise_signal(signal.SIGINT)
    while True:
        pass
"""


@pytest.mark.skipif(os.name != "posix", reason="Windows says it otherwise")
def test_a_second_ctrl_c_acts_at_once() -> None:
    """In a process of its own: here it might be raised within what a library does when garbage is collected, which swallows it."""
    root = Path(__file__).parents[2]
    done = subprocess.run([sys.executable, "-c", PRESSED_TWICE], cwd=root, capture_output=True, text=True, check=False)
    assert done.returncode == -signal.SIGINT and done.stderr.endswith("KeyboardInterrupt\n")
    first, second = done.stdout.splitlines()
    assert first.startswith("Stopping as soon as") and second == "goes on"


@pytest.mark.skipif(not HAS_HANGUP, reason="Windows has no SIGHUP")
def test_a_closed_terminal_may_say_it_twice() -> None:
    """The shell and the system both do, and service managers say it right after SIGTERM."""
    stop, said = Stop(), []
    with stop_signals(stop, write=said.append):
        for number in (signal.SIGTERM, signal.SIGHUP, signal.SIGHUP):
            signal.raise_signal(number)
    assert stop.asked and len(said) == 1


@pytest.mark.skipif(not HAS_HANGUP, reason="Windows has no SIGHUP")
def test_what_nohup_ignores_stays_ignored() -> None:
    stop, before = Stop(), signal.signal(signal.SIGHUP, signal.SIG_IGN)
    try:
        with stop_signals(stop, write=lambda text: None):
            signal.raise_signal(signal.SIGHUP)
        assert not stop.asked
    finally:
        signal.signal(signal.SIGHUP, before)


def test_another_thread_changes_nothing() -> None:
    before = signal.getsignal(signal.SIGINT)

    def enter() -> None:
        with stop_signals(Stop(), write=lambda text: None):
            seen.append(signal.getsignal(signal.SIGINT))

    seen: list[object] = []
    thread = threading.Thread(target=enter)
    thread.start()
    thread.join()
    assert seen == [before]


def test_work_is_left_where_it_reports() -> None:
    stop = Stop()
    report = stop.guard(ignore_progress)
    report("encoding", 1, 2)
    stop.say()
    with pytest.raises(Stopped):
        report("encoding", 2, 2)
