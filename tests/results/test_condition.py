"""What has become of a run, whoever started it and however it ended."""

from __future__ import annotations

import json
import os
import signal
import socket
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import pytest

from weber.checkpoint.lock import lock_folder
from weber.results.condition import read_condition
from weber.track.process import read_identity
from weber.track.record import STATUS_NAME

HOLD = """
import sys, time
from pathlib import Path
from weber.checkpoint.lock import lock_folder
from weber.track.record import Record
with lock_folder(Path(sys.argv[1])):
    record = Record()
    record.open(Path(sys.argv[1]))
    record.report("encoding", 3, 40)
    print("held", flush=True)
    time.sleep(60)
"""


def write(folder: Path, **said: Any) -> None:
    folder.mkdir(exist_ok=True)
    status = {"status": "running", "pid": os.getpid(), "process": read_identity(os.getpid()), "time": time.time()}
    status["host"] = socket.gethostname()
    (folder / STATUS_NAME).write_text(json.dumps(status | said))


def test_a_process_that_is_killed_is_not_at_work_any_more(tmp_path: Path) -> None:
    root = Path(__file__).parents[2]
    with subprocess.Popen([sys.executable, "-c", HOLD, str(tmp_path)], stdout=subprocess.PIPE, cwd=root) as child:
        assert child.stdout is not None and child.stdout.readline() == b"held\n"
        found = read_condition(tmp_path)
        assert found.status == "running" and found.pid == child.pid and found.is_here
        (tmp_path / STATUS_NAME).rename(tmp_path / "aside")
        assert read_condition(tmp_path).status == "running"  # by its lock alone
        (tmp_path / "aside").rename(tmp_path / STATUS_NAME)
        child.send_signal(signal.SIGKILL)
        child.wait()
    assert read_condition(tmp_path).status == "killed"


@pytest.mark.parametrize(
    ("said", "status"),
    [
        ({}, "running"),
        ({"time": 0}, "silent"),
        ({"process": "another boot 17"}, "killed"),
        ({"pid": 2**22 + 7}, "killed"),
        ({"pid": "x"}, "killed"),
        ({"status": "finished"}, "finished"),
        ({"status": "failed", "error": "No."}, "failed"),
        ({"host": "another"}, "running"),
        ({"host": "another", "time": 0}, "unknown"),
        ({"host": "another", "time": 0, "status": "stopped"}, "stopped"),
    ],
)
def test_every_end_has_its_name(tmp_path: Path, said: dict[str, Any], status: str) -> None:
    write(tmp_path, **said)
    found = read_condition(tmp_path)
    assert found.status == status and found.error == said.get("error", "")


def test_a_run_that_is_prepared_again_is_at_work(tmp_path: Path) -> None:
    write(tmp_path, status="finished", pid=2**22 + 7)
    assert read_condition(tmp_path).status == "finished"
    with lock_folder(tmp_path):
        assert read_condition(tmp_path).status == "running"
    assert read_condition(tmp_path).status == "finished"


def test_folders_of_older_runs_and_damaged_ones_are_read(tmp_path: Path) -> None:
    assert read_condition(tmp_path).status == "idle"
    for text in ("", "[]", "{", "null"):
        (tmp_path / STATUS_NAME).write_text(text)
        assert read_condition(tmp_path).status == "idle"
    (tmp_path / "metrics.jsonl").write_text("")
    assert read_condition(tmp_path).status == "stopped"
