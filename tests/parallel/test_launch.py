"""`weber train` on several devices: a process that is killed ends all with one message, and the run goes on to the same bytes."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import pytest

from tests.runs import BuildRun, build_watcher
from weber.checkpoint.save import list_checkpoints
from weber.config.load import save_config
from weber.errors import ConfigError
from weber.parallel.launch import INTERRUPTED, LOST, launch
from weber.training.assemble import train

SECONDS = 30
"""Within which all have to be gone."""


def _find_child(port_of: int, rank: int) -> int | None:
    """The process of that rank which `port_of` watches."""
    for folder in Path("/proc").glob("[0-9]*"):
        try:
            variables = (folder / "environ").read_bytes().split(b"\0")
        except OSError:
            continue
        if {f"WEBER_PARENT={port_of}".encode(), f"RANK={rank}".encode()} <= set(variables):
            return int(folder.name)
    return None


@pytest.mark.skipif(not Path("/proc/self/environ").exists(), reason="finds processes by /proc")
def test_one_killed_ends_all_and_the_run_goes_on_to_the_same_bytes(build_run: BuildRun, tmp_path: Path) -> None:
    sections: dict[str, Any] = {"data": [{"resolution": 64}], "train": {"steps": 14, "accumulation": 2, "batch_size": 1}}
    sections["output"] = {"save_every": 2}
    whole, parts = build_run("whole/run", **sections), build_run("parts/run", parallel={"devices": 2}, **sections)
    save_config(parts, tmp_path / "run.toml")
    command = [sys.executable, "-c", "from weber.cli import main; main()", "train", str(tmp_path / "run.toml")]
    with (tmp_path / "said.txt").open("wb") as file:
        watching = subprocess.Popen(command, stdout=file, stderr=file)
    while not list_checkpoints(parts.output.folder):
        assert watching.poll() is None, (tmp_path / "said.txt").read_text()
        time.sleep(0.02)
    child = _find_child(watching.pid, 1)
    assert child is not None
    killed = time.monotonic()
    os.kill(child, signal.SIGKILL)
    assert watching.wait(SECONDS) == 2
    assert time.monotonic() - killed < SECONDS and _find_child(watching.pid, 0) is None
    said = (tmp_path / "said.txt").read_text()
    assert said.count("error:") == 1 and "Process 1 of the run was killed" in said and "SIGKILL" in said and "Traceback" not in said
    train(whole, resume=False, watcher=build_watcher()[0])
    with pytest.raises(ConfigError, match="this is one process"):
        train(parts, resume=True, watcher=build_watcher()[0])
    train(build_run("parts/run", **sections), resume=True, watcher=build_watcher()[0])
    for name in ("adapter.safetensors", "checkpoint-000014/optimizer.safetensors"):
        assert (whole.output.folder / name).read_bytes() == (parts.output.folder / name).read_bytes()


@pytest.fixture
def say(monkeypatch: pytest.MonkeyPatch) -> list[str]:
    """What is written; the processes are small programs."""
    monkeypatch.setattr("weber.parallel.launch._COMMAND", (sys.executable, "-S", "-c"))
    return []


@pytest.mark.parametrize(
    ("program", "code", "message"),
    [
        ("import os; os._exit(0)", 0, None),
        ("import os; os._exit(130)", 130, None),
        ("import os; print('error: no'); os._exit(2 if os.environ['RANK'] == '1' else 75)", 2, "error: no"),
        ("import os; os._exit(75 if os.environ['RANK'] == '0' else 0)", 2, "lost the others"),
        ("import os; os._exit(75 if os.environ['RANK'] == '0' else 3)", 2, "Process 1 of the run has ended with code 3"),
    ],
)
def test_how_a_run_ends(say: list[str], program: str, code: int, message: str | None) -> None:
    assert (LOST, INTERRUPTED) == (75, 130)
    assert launch([program], [None, None], variables=dict(os.environ), own=os.getpid(), write=say.append) == code
    assert (message is None and not say) or (message is not None and message in say[0])


def test_each_process_sees_its_own_gpu(say: list[str], tmp_path: Path) -> None:
    program = f"import os; open(r'{tmp_path}/' + os.environ['RANK'], 'w').write(os.environ['CUDA_VISIBLE_DEVICES'])"
    variables = {**os.environ, "CUDA_VISIBLE_DEVICES": "4,GPU-7"}
    assert launch([program], [1, 0], variables=variables, own=os.getpid(), write=say.append) == 0
    assert [(tmp_path / rank).read_text() for rank in "01"] == ["GPU-7", "4"]
