"""Checkpoints appear whole or not at all, whatever happens while they are written."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import textwrap
from collections.abc import Callable
from hashlib import blake2b
from pathlib import Path

import pytest

from weber.checkpoint.resume import load_latest
from weber.checkpoint.save import MANIFEST, hash_file, list_checkpoints, save_checkpoint
from weber.errors import CheckpointError

Save = Callable[[int], Path]


def _read_files(folder: Path) -> dict[str, bytes]:
    return {file.relative_to(folder).as_posix(): file.read_bytes() for file in folder.rglob("*") if file.is_file()}


def _run(code: str, *arguments: str) -> subprocess.CompletedProcess[str]:
    environment = os.environ | {"PYTHONPATH": os.pathsep.join(sys.path)}
    command = [sys.executable, "-c", textwrap.dedent(code), *arguments]
    return subprocess.run(command, capture_output=True, text=True, env=environment, check=False)


def test_a_checkpoint_holds_its_files_and_a_manifest_of_them(save: Save, tmp_path: Path) -> None:
    folder = save(12)
    assert folder == tmp_path / "checkpoint-000012"
    assert {file.name for file in folder.iterdir()} == {"adapter.safetensors", "state.json", MANIFEST}
    manifest = json.loads((folder / MANIFEST).read_text(encoding="utf-8"))
    assert manifest == {
        name: {"bytes": len(data), "blake2b": blake2b(data, digest_size=16).hexdigest()}
        for name, data in _read_files(folder).items()
        if name != MANIFEST
    }
    assert hash_file(folder / "state.json") == manifest["state.json"]
    assert [path.name for path in tmp_path.iterdir()] == ["checkpoint-000012"]


def test_same_state_same_bytes(save: Save) -> None:
    first = _read_files(save(3))
    assert _read_files(save(3)) == first
    assert _read_files(save(4)) != first


def test_the_order_of_files_does_not_matter(tmp_path: Path) -> None:
    def write(path: Path) -> None:
        path.write_text(path.name, encoding="utf-8")

    one = save_checkpoint(tmp_path / "one", 1, files={"a": write, "b": write})
    two = save_checkpoint(tmp_path / "two", 1, files={"b": write, "a": write})
    assert _read_files(one) == _read_files(two)


class WriterError(Exception):
    """What a writer function of a test raises."""


@pytest.mark.parametrize("error", [WriterError("bug"), KeyboardInterrupt(), OSError(28, "No space left on device")])
def test_a_writer_that_fails_leaves_no_checkpoint_and_the_earlier_ones_as_they_were(
    save: Save, tmp_path: Path, error: BaseException
) -> None:
    before = _read_files(save(1))

    def fail(path: Path) -> None:
        path.write_bytes(b"half")
        raise error

    with pytest.raises(CheckpointError if isinstance(error, OSError) else type(error)) as caught:
        save_checkpoint(tmp_path, 2, files={"state.json": lambda path: path.write_bytes(b"whole"), "adapter.safetensors": fail})
    assert [step for step, _ in list_checkpoints(tmp_path)] == [1]
    assert _read_files(tmp_path / "checkpoint-000001") == before
    assert load_latest(tmp_path).step == 1
    if isinstance(error, OSError):
        message = str(caught.value)
        assert "checkpoint of step 2 could not be written; earlier ones are untouched" in message
        assert "No space left on device" in message
        assert str(tmp_path / "checkpoint-000002") in message
        assert f"fix: free space on that disk, then: weber train {tmp_path}/config.toml --resume" in message
        assert f"output.folder=/another/disk/run --resume {tmp_path}/checkpoint-000001" in message
    save(2)
    assert load_latest(tmp_path).step == 2
    assert not list(tmp_path.glob(".*"))


@pytest.mark.skipif(os.name != "posix", reason="limits on file sizes")
def test_tensors_that_do_not_fit_on_the_disk_are_an_error_in_words(tmp_path: Path) -> None:
    """The safetensors library has its own class for a failed write."""
    code = """
        import resource, signal, sys
        from pathlib import Path
        import torch
        from safetensors.torch import save_file
        from weber.checkpoint.save import save_checkpoint
        from weber.errors import CheckpointError
        signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
        resource.setrlimit(resource.RLIMIT_FSIZE, (10_000, 10_000))
        try:
            save_checkpoint(Path(sys.argv[1]), 5, files={"optimizer.safetensors": lambda path: save_file({"x": torch.ones(9999)}, path)})
        except CheckpointError as error:
            sys.exit(str(error))
    """
    result = _run(code, str(tmp_path))
    assert result.returncode == 1
    assert "The checkpoint of step 5 could not be written" in result.stderr
    assert "Traceback" not in result.stderr
    assert list_checkpoints(tmp_path) == []


@pytest.mark.skipif(os.name != "posix", reason="SIGKILL")
@pytest.mark.parametrize("moment", ["writing", "manifest", "before the rename"])
def test_a_killed_process_leaves_no_half_checkpoint(save: Save, tmp_path: Path, moment: str) -> None:
    save(1)
    code = """
        import os, signal, sys
        from pathlib import Path
        from weber.checkpoint import save
        def die(*_):
            os.kill(os.getpid(), signal.SIGKILL)
        moment = sys.argv[2]
        write = die if moment == "writing" else lambda path: path.write_bytes(b"whole")
        if moment == "manifest":
            save.hash_file = die
        if moment == "before the rename":
            Path.replace = die
        save.save_checkpoint(Path(sys.argv[1]), 2, files={"first": lambda path: path.write_bytes(b"whole"), "second": write})
    """
    assert _run(code, str(tmp_path), moment).returncode == -signal.SIGKILL
    assert [step for step, _ in list_checkpoints(tmp_path)] == [1]
    assert load_latest(tmp_path).damaged == {}
    save(2)
    assert [step for step, _ in list_checkpoints(tmp_path)] == [1, 2]
    assert not list(tmp_path.glob(".*"))


def test_a_folder_that_cannot_be_written(tmp_path: Path) -> None:
    (tmp_path / "file").write_bytes(b"")
    with pytest.raises(CheckpointError, match="could not be written"):
        save_checkpoint(tmp_path / "file" / "run", 1, files={})


def test_checkpoints_are_listed_by_step(save: Save, tmp_path: Path) -> None:
    for step in (2, 30, 100, 1_234_567):
        save(step)
    (tmp_path / "checkpoint-latest").mkdir()
    (tmp_path / "checkpoint-7").mkdir()
    (tmp_path / "checkpoint-000005.bak").mkdir()
    assert [(step, folder.name) for step, folder in list_checkpoints(tmp_path)] == [
        (2, "checkpoint-000002"),
        (30, "checkpoint-000030"),
        (100, "checkpoint-000100"),
        (1_234_567, "checkpoint-1234567"),
    ]
    assert list_checkpoints(tmp_path / "missing") == []


def test_what_a_resumed_run_has_passed_over_does_not_outlive_its_next_checkpoint(save: Save, tmp_path: Path) -> None:
    for step in (3, 6, 9):
        save(step)
    (tmp_path / "checkpoint-000009" / "state.json").unlink()
    save(7)
    assert [step for step, _ in list_checkpoints(tmp_path)] == [3, 6, 7]
    assert load_latest(tmp_path).step == 7
