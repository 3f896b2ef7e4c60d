"""A run folder is held by one process, and let go when that process dies."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest

from weber.checkpoint.lock import lock_folder
from weber.errors import CheckpointError

HOLD = """
import sys, time
from pathlib import Path
from weber.checkpoint.lock import lock_folder
with lock_folder(Path(sys.argv[1])):
    print("held", flush=True)
    time.sleep(60)
"""


def test_a_second_process_is_refused_until_the_first_is_killed(tmp_path: Path) -> None:
    folder = tmp_path / "run"
    root = Path(__file__).parents[2]
    with subprocess.Popen([sys.executable, "-c", HOLD, str(folder)], stdout=subprocess.PIPE, cwd=root) as child:
        assert child.stdout is not None and child.stdout.readline() == b"held\n"
        with pytest.raises(CheckpointError, match="Another process is training"), lock_folder(folder):
            pass
        child.kill()
        child.wait()
    with lock_folder(folder):
        pass
    with lock_folder(folder):
        pass
