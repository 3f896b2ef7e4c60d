"""TensorBoard events: readable by TensorBoard itself, without the steps that a resumed run does again."""

from __future__ import annotations

import os
import subprocess
import sys
import textwrap
from pathlib import Path

import pytest

from weber.config.output import OutputConfig
from weber.track.metrics import open_trackers
from weber.track.tensorboard import TensorboardTracker, check_tensorboard


def _read(folder: Path) -> dict[str, list[tuple[int, float]]]:
    from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

    events = EventAccumulator(str(folder / "tensorboard"), size_guidance={"scalars": 0})
    events.Reload()
    return {tag: [(event.step, event.value) for event in events.Scalars(tag)] for tag in events.Tags()["scalars"]}


def _write(folder: Path, *, start: int, stop: int, done_steps: int, factor: float) -> None:
    with TensorboardTracker(folder, done_steps=done_steps) as tracker:
        for step in range(start, stop + 1):
            tracker.write(step, {"loss": factor * step, "lr": 0.5, "note": "text"})


def test_events_are_read_back(tmp_path: Path) -> None:
    _write(tmp_path, start=1, stop=3, done_steps=0, factor=0.25)
    assert _read(tmp_path) == {"loss": [(1, 0.25), (2, 0.5), (3, 0.75)], "lr": [(1, 0.5), (2, 0.5), (3, 0.5)]}


def test_steps_after_the_checkpoint_of_a_killed_run_are_hidden(tmp_path: Path) -> None:
    _write(tmp_path, start=1, stop=9, done_steps=0, factor=1.0)
    _write(tmp_path, start=7, stop=8, done_steps=6, factor=10.0)
    assert _read(tmp_path)["loss"] == [(step, float(step)) for step in range(1, 7)] + [(7, 70.0), (8, 80.0)]


@pytest.mark.parametrize("tensorboard", [True, False])
def test_trackers_of_a_config(tmp_path: Path, tensorboard: bool) -> None:
    with open_trackers(OutputConfig(tensorboard=tensorboard), tmp_path, done_steps=0) as trackers:
        trackers.write(1, {"loss": 0.5})
    assert (tmp_path / "metrics.jsonl").read_text(encoding="utf-8") == '{"step": 1, "loss": 0.5}\n'
    assert (tmp_path / "tensorboard").is_dir() == tensorboard
    assert not tensorboard or _read(tmp_path) == {"loss": [(1, 0.5)]}


def test_it_is_here() -> None:
    check_tensorboard()


def test_without_the_package(tmp_path: Path) -> None:
    """In a process that cannot find it, as where the extra is not installed; `metrics.jsonl` needs nothing."""
    code = """
        import sys
        from pathlib import Path

        class Hider:
            def __init__(self, finder):
                self.finder = finder
            def find_spec(self, name, path=None, target=None):
                return None if name.partition(".")[0] == "tensorboard" else self.finder.find_spec(name, path, target)

        sys.meta_path[:] = [Hider(finder) for finder in sys.meta_path]
        from weber.config.output import OutputConfig
        from weber.errors import MissingExtraError
        from weber.track.metrics import open_trackers
        with open_trackers(OutputConfig(), Path(sys.argv[1]), done_steps=0) as trackers:
            trackers.write(1, {"loss": 1.0})
        try:
            with open_trackers(OutputConfig(tensorboard=True), Path(sys.argv[1]), done_steps=1):
                sys.exit("no error")
        except MissingExtraError as error:
            sys.exit(str(error))
    """
    environment = os.environ | {"PYTHONPATH": os.pathsep.join(sys.path)}
    command = [sys.executable, "-c", textwrap.dedent(code), str(tmp_path)]
    result = subprocess.run(command, capture_output=True, text=True, env=environment, check=False)
    assert result.stderr.splitlines() == [
        "TensorBoard is not installed.",
        "  got: output.tensorboard = true",
        "  fix: pip install 'weber[tensorboard]', or set output.tensorboard = false (metrics.jsonl is always written)",
    ]
    assert (tmp_path / "metrics.jsonl").read_text(encoding="utf-8") == '{"step": 1, "loss": 1.0}\n'
