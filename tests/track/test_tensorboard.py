"""TensorBoard events: readable by TensorBoard itself, without the steps that a resumed run does again."""

from __future__ import annotations

import os
import subprocess
import sys
import textwrap
from pathlib import Path

import pytest
from PIL import Image

from weber.config.output import OutputConfig
from weber.track.metrics import check_trackers, open_trackers
from weber.track.run_facts import RunFacts
from weber.track.tensorboard import TensorboardTracker


def _read(folder: Path) -> dict[str, list[tuple[int, float]]]:
    from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

    events = EventAccumulator(str(folder / "tensorboard"), size_guidance={"scalars": 0})
    events.Reload()
    return {tag: [(event.step, event.value) for event in events.Scalars(tag)] for tag in events.Tags()["scalars"]}


def _build_facts(folder: Path, *, done_steps: int) -> RunFacts:
    return RunFacts(folder, "weber", "run", "id", {"train": {"steps": 3}}, "a plan", done_steps, 0)


def _write(folder: Path, *, start: int, stop: int, done_steps: int, factor: float) -> None:
    with TensorboardTracker(_build_facts(folder, done_steps=done_steps)) as tracker:
        for step in range(start, stop + 1):
            tracker.write(step, {"loss": factor * step, "lr": 0.5, "note": "text"})


def test_events_are_read_back(tmp_path: Path) -> None:
    _write(tmp_path, start=1, stop=3, done_steps=0, factor=0.25)
    assert _read(tmp_path) == {"loss": [(1, 0.25), (2, 0.5), (3, 0.75)], "lr": [(1, 0.5), (2, 0.5), (3, 0.5)]}


def test_steps_after_the_checkpoint_of_a_killed_run_are_hidden(tmp_path: Path) -> None:
    _write(tmp_path, start=1, stop=9, done_steps=0, factor=1.0)
    _write(tmp_path, start=7, stop=8, done_steps=6, factor=10.0)
    assert _read(tmp_path)["loss"] == [(step, float(step)) for step in range(1, 7)] + [(7, 70.0), (8, 80.0)]


def test_pictures_settings_and_the_plan(tmp_path: Path) -> None:
    from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

    Image.new("RGB", (48, 32), (200, 30, 10)).save(tmp_path / "1.png")
    with TensorboardTracker(_build_facts(tmp_path, done_steps=0)) as tracker:
        tracker.write_pictures(0, {tmp_path / "1.png": "a fox"})
        tracker.write_pictures(5, {tmp_path / "1.png": "a fox"})
    events = EventAccumulator(str(tmp_path / "tensorboard"))
    events.Reload()
    assert [(one.step, one.width, one.height) for one in events.Images("pictures/1")] == [(0, 48, 32), (5, 48, 32)]
    texts = {tag: events.Tensors(tag)[0].tensor_proto.string_val[0].decode() for tag in events.Tags()["tensors"]}
    assert texts["pictures/1/text_summary"] == "a fox" and "a plan" in texts["plan/text_summary"]
    assert '"steps": 3' in texts["settings/text_summary"]


@pytest.mark.parametrize("tensorboard", [True, False])
def test_trackers_of_a_config(tmp_path: Path, tensorboard: bool) -> None:
    config = OutputConfig(folder=tmp_path, trackers=["tensorboard"] if tensorboard else [])
    with open_trackers(config, settings={}, summary="", done_steps=0, say=pytest.fail) as trackers:
        trackers.write(1, {"loss": 0.5, "seconds": 0.25})
    assert (tmp_path / "metrics.jsonl").read_text(encoding="utf-8") == '{"step": 1, "loss": 0.5, "seconds": 0.25}\n'
    assert (tmp_path / "tensorboard").is_dir() == tensorboard
    assert not tensorboard or _read(tmp_path) == {"loss": [(1, 0.5)], "seconds": [(1, 0.25)], "steps_per_second": [(1, 4.0)]}


def test_it_is_here() -> None:
    check_trackers(OutputConfig(trackers=["tensorboard"]))


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
        from weber.track.metrics import check_trackers, open_trackers
        with open_trackers(OutputConfig(folder=Path(sys.argv[1])), settings={}, summary="", done_steps=0, say=print) as trackers:
            trackers.write(1, {"loss": 1.0})
        try:
            check_trackers(OutputConfig(trackers=["tensorboard"]))
            sys.exit("no error")
        except MissingExtraError as error:
            sys.exit(str(error))
    """
    environment = os.environ | {"PYTHONPATH": os.pathsep.join(sys.path)}
    command = [sys.executable, "-c", textwrap.dedent(code), str(tmp_path)]
    result = subprocess.run(command, capture_output=True, text=True, env=environment, check=False)
    assert result.stderr.splitlines() == [
        "tensorboard is not installed.",
        '  got: output.trackers with "tensorboard"',
        "  fix: pip install 'weber[tensorboard]', or take it out of output.trackers (metrics.jsonl is always written)",
    ]
    assert (tmp_path / "metrics.jsonl").read_text(encoding="utf-8") == '{"step": 1, "loss": 1.0}\n'
