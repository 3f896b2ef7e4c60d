"""wandb without a network, and trackio with a server of its own: what a run told them is read back with their own readers."""

from __future__ import annotations

import json
import os
import struct
import subprocess
import sys
import textwrap
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from PIL import Image

from weber.config.output import OutputConfig
from weber.errors import ConfigError
from weber.track.metrics import check_trackers, open_trackers

SETTINGS = {"train": {"steps": 6}, "optim": {"lr": 1e-4}}


def _write(config: OutputConfig, *, steps: range, done_steps: int) -> list[str]:
    said: list[str] = []
    picture = config.folder / "1.png"
    Image.new("RGB", (32, 32), (200, 30, 10)).save(picture)
    with open_trackers(config, settings=SETTINGS, summary="a plan", done_steps=done_steps, say=said.append) as trackers:
        for step in steps:
            trackers.write(step, {"loss": step / 8, "lr": 1e-4})
        trackers.write_pictures(steps[-1], {picture: "a fox"})
    return said


# --- wandb


@pytest.fixture
def offline(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Iterator[None]:
    import wandb

    wandb.teardown()
    for name, value in {"WANDB_MODE": "offline", "WANDB_CONFIG_DIR": str(tmp_path / "c"), "WANDB_CACHE_DIR": str(tmp_path / "d")}.items():
        monkeypatch.setenv(name, value)
    yield
    wandb.teardown()


def _list_records(file: Path) -> Iterator[bytes]:
    """The records of the file that `wandb sync` sends: LevelDB's log format behind seven bytes, in blocks of 32 KiB."""
    content, place, whole = file.read_bytes(), 7, b""
    while place + 7 <= len(content):
        left = 32768 - place % 32768
        if left < 7:
            place += left
            continue
        size, kind = struct.unpack("<HB", content[place + 4 : place + 7])
        whole += content[place + 7 : place + 7 + size]
        place += 7 + size
        if kind in (1, 4):  # whole, or its last part
            yield whole
            whole = b""


def _read_wandb(file: Path) -> tuple[dict[str, Any], dict[int, dict[str, Any]]]:
    """Facts of the run, and what was recorded of each step."""
    from wandb.proto import wandb_internal_pb2

    facts, history = dict[str, Any](), dict[int, dict[str, Any]]()
    for data in _list_records(file):
        record = wandb_internal_pb2.Record()
        record.ParseFromString(data)
        if record.WhichOneof("record_type") == "run":
            facts = {"id": record.run.run_id, "project": record.run.project, "name": record.run.display_name}
            facts |= {item.key: json.loads(item.value_json) for item in record.run.config.update}
        if record.WhichOneof("record_type") == "history":
            items = {(item.key or "/".join(item.nested_key)): json.loads(item.value_json) for item in record.history.item}
            history.setdefault(record.history.step.num, {}).update(items)
    return facts, history


def test_wandb_without_a_network(tmp_path: Path, offline: None) -> None:
    config = OutputConfig(folder=tmp_path, trackers=["wandb"], project="foxes", run_name="first")
    check_trackers(config)
    assert _write(config, steps=range(1, 5), done_steps=0) == []
    # killed after step 4, gone on with after step 2: two steps are done again, and are there already
    assert _write(config, steps=range(3, 7), done_steps=2) == []
    files = sorted((tmp_path / "wandb").glob("offline-run-*/*.wandb"), key=lambda file: file.stat().st_mtime_ns)
    (first, before), (second, after) = map(_read_wandb, files)
    assert first["id"] == second["id"] == json.loads((tmp_path / "trackers.json").read_text())["identifier"]
    assert (first["project"], first["name"]) == ("foxes", "first") and first["train"] == {"steps": 6}
    assert {step: one["loss"] for step, one in before.items() if "loss" in one} == {1: 0.125, 2: 0.25, 3: 0.375, 4: 0.5}
    assert {step: one["loss"] for step, one in after.items() if "loss" in one} == {5: 0.625, 6: 0.75}
    assert before[4]["pictures/captions"] == ["a fox"] and list((tmp_path / "wandb").glob("*/files/media/images/*.png"))


def test_wandb_that_would_have_to_ask(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    import wandb

    wandb.teardown()
    monkeypatch.delenv("WANDB_API_KEY", raising=False)
    monkeypatch.setenv("WANDB_MODE", "online")
    monkeypatch.setenv("HOME", str(tmp_path))
    monkeypatch.setenv("NETRC", str(tmp_path / "none"))
    with pytest.raises(ConfigError, match=r"(?s)no key.*WANDB_MODE=offline"):
        check_trackers(OutputConfig(trackers=["wandb"]))
    wandb.teardown()


# --- trackio


def test_trackio_with_a_server_of_its_own(tmp_path: Path) -> None:
    """In a process of its own, since trackio reads at its import where it writes: a server on loopback, and a run that is sent there."""
    code = """
        import json, os, sys
        from pathlib import Path
        import trackio
        from trackio.sqlite_storage import SQLiteStorage
        _, url, _, full = trackio.show(open_browser=False, block_thread=False, host="127.0.0.1")
        os.environ["TRACKIO_SERVER_URL"] = full
        from tests.track.test_services import _write
        from weber.config.output import OutputConfig
        folder = Path(sys.argv[1])
        config = OutputConfig(folder=folder, trackers=["trackio"], project="foxes", run_name="first")
        said = _write(config, steps=range(1, 5), done_steps=0) + _write(config, steps=range(3, 7), done_steps=2)
        runs = [one["name"] if isinstance(one, dict) else one for one in SQLiteStorage.get_runs("foxes")]
        logs = SQLiteStorage.get_logs("foxes", runs[0])
        print("RESULT", json.dumps({"said": said, "runs": runs, "logs": [one for one in logs], "url": url}, default=str))
    """
    environment = os.environ | {"TRACKIO_DIR": str(tmp_path / "trackio"), "PYTHONPATH": os.pathsep.join(sys.path)}
    command = [sys.executable, "-c", textwrap.dedent(code), str(tmp_path)]
    result = subprocess.run(command, capture_output=True, text=True, env=environment, timeout=120, check=False)
    assert result.returncode == 0, result.stderr
    found = json.loads(next(line for line in result.stdout.splitlines() if line.startswith("RESULT")).removeprefix("RESULT"))
    identifier = json.loads((tmp_path / "trackers.json").read_text())["identifier"]
    assert found["said"] == [] and found["runs"] == [f"first-{identifier}"]
    assert {one["step"]: one["loss"] for one in found["logs"] if "loss" in one} == {step: step / 8 for step in range(1, 7)}
    pictures = [one for one in found["logs"] if "pictures/1" in one]
    assert [one["step"] for one in pictures] == [4, 6] and list((tmp_path / "trackio").rglob("*.png"))
