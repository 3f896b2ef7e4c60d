"""What a run says of itself in its folder."""

from __future__ import annotations

import io
import json
import os
import subprocess
import sys
import time
from pathlib import Path

import pytest

from weber.errors import ConfigError
from weber.track.events import build_notice, build_step
from weber.track.process import is_alive, is_locked, read_identity
from weber.track.progress import Watcher, build_console
from weber.track.record import EVENTS_NAME, STATUS_NAME
from weber.track.webhooks import Opened


def read(folder: Path) -> tuple[list[dict[str, object]], dict[str, object]]:
    lines = [json.loads(line) for line in (folder / EVENTS_NAME).read_text().splitlines()]
    return lines, json.loads((folder / STATUS_NAME).read_text())


def build_watcher() -> Watcher:
    return Watcher(build_console(io.StringIO()))


def test_a_run_tells_its_folder_what_it_does(tmp_path: Path) -> None:
    with Opened([], job="cat", watcher=build_watcher()) as opened:
        opened.watcher.write("s3://name:secret@host/x is read")
        assert not list(tmp_path.iterdir())  # a run that is refused leaves nothing
        opened.record.open(tmp_path)
        opened.messages.start(0, 40, count=lambda every: 1)
        opened.messages.tell_step(3, 40, numbers={"loss": 0.5}, seconds=2.0)
        opened.messages.finish(tmp_path / "adapter.safetensors")
    lines, status = read(tmp_path)
    assert [line["type"] for line in lines] == ["notification", "training.status", "training.checkpoint", "training.status"]
    assert "secret" not in (tmp_path / EVENTS_NAME).read_text()
    assert status["status"] == "finished" and status["step"] == 3 and status["steps"] == 40 and status["eta_seconds"] == 74.0
    assert status["pid"] == os.getpid() and status["process"] == read_identity(os.getpid())


def test_how_a_run_ends_is_known(tmp_path: Path) -> None:
    for error, status, words in ((ConfigError("No."), "failed", "No."), (KeyboardInterrupt(), "stopped", None)):
        with pytest.raises(type(error)), Opened([], job="cat", watcher=build_watcher()) as opened:
            opened.record.open(tmp_path)
            raise error
        found = read(tmp_path)[1]
        assert found["status"] == status and found.get("error") == words


def test_the_status_is_not_written_at_every_step(tmp_path: Path) -> None:
    with Opened([], job="cat", watcher=build_watcher()) as opened:
        opened.record.open(tmp_path)
        before = (tmp_path / STATUS_NAME).stat().st_ino
        for done in range(50):
            opened.record.tell_step(build_step(done, 50, numbers={"loss": 1.0}, seconds=None), done=done, total=50)
            opened.record.report("painting", done, 50)
        assert len({before, (tmp_path / STATUS_NAME).stat().st_ino}) <= 2


def test_a_folder_that_is_gone_ends_no_run(tmp_path: Path) -> None:
    with Opened([], job="cat", watcher=build_watcher()) as opened:
        opened.record.open(tmp_path / "not there")
        opened.record.tell(build_notice("still here", level="info"))


def test_a_process_is_told_from_others_of_its_number(tmp_path: Path) -> None:
    with subprocess.Popen([sys.executable, "-c", "input()"], stdin=subprocess.PIPE) as child:
        identity = read_identity(child.pid)
        assert identity is not None and is_alive(child.pid, identity) and not is_alive(child.pid, f"{identity}1")
        child.kill()
        deadline = time.monotonic() + 10
        while is_alive(child.pid, identity) and time.monotonic() < deadline:
            time.sleep(0.01)
        assert not is_alive(child.pid, identity)  # though nobody has waited for it yet
    assert read_identity(child.pid) != identity
    assert not is_locked(tmp_path / "none")
