"""Processes that are ended: killed while they cache, save and train, they lose nothing; asked to stop, they end after their step."""

from __future__ import annotations

import importlib
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from types import ModuleType
from typing import Any

import pytest

from tests.processes import Weber
from tests.runs import BuildRun, build_watcher
from tests.training.test_resume import read_losses
from weber.cache.store import Store
from weber.checkpoint import save
from weber.checkpoint.save import list_checkpoints
from weber.config.load import save_config
from weber.training import loop
from weber.training.assemble import train

BENCHMARKS = Path(__file__).parents[2] / "benchmarks"
NUM_TRIES = 3
"""A busy machine may see a file so late that the process is past what it was to be killed in."""

WAITS = ((Store, "publish", 0.3), (save, "hash_file", 0.1), (loop, "start_step", 0.1))
"""Where a process waits a little (seconds), so that a busy machine sees what it is in."""


@pytest.fixture(scope="module")
def kill() -> Iterator[ModuleType]:
    """`benchmarks/kill.py`, which kills at many random moments; here are three chosen ones."""
    with pytest.MonkeyPatch.context() as patch:
        patch.syspath_prepend(BENCHMARKS)
        module = importlib.import_module("kill")
        patch.setattr(module, "start", start)
        yield module


@contextmanager
def start(place: Any) -> Iterator[Weber]:
    """As `start` there does, but the process need not import the libraries."""
    resume = ["--resume"] if place.run.exists() else []
    child = Weber(["train", str(place.folder / "config.toml"), *resume], output=place.folder / "output.txt", first=slow_down)
    try:
        yield child
    finally:
        child.kill()
        child.wait()


def slow_down() -> None:
    for owner, name, seconds in WAITS:
        setattr(owner, name, _build_slow(getattr(owner, name), seconds))


def _build_slow(call: Callable[..., Any], seconds: float) -> Callable[..., Any]:
    def wait(*arguments: Any, **more: Any) -> Any:
        result = call(*arguments, **more)
        time.sleep(seconds)
        return result

    return wait


def test_killed_run_resumes_to_the_same_bytes(kill: ModuleType, tmp_path: Path) -> None:
    place = kill.build_place(tmp_path, num_steps=12, paint_every=5)
    kill.watch(place)

    for _ in range(NUM_TRIES):
        kill.clear(place)
        caching = kill.kill_when(place, lambda signs: signs["shards"] == 1)
        if caching is not None and caching.phase == "caching":
            break
    else:
        pytest.fail("no kill came while there was only a part of the cache")

    for _ in range(NUM_TRIES):
        saving = kill.kill_when(place, lambda signs: signs["saving"] > 0)
        if saving is not None and saving.phase == "saving":
            break
    else:
        pytest.fail("no kill has left a checkpoint unfinished")
    assert f".checkpoint-{saving.signs['checkpoint'] + 3:06d}.partial" in saving.unfinished

    training = kill.kill_when(place, lambda signs: signs["steps"] >= saving.signs["checkpoint"] + 5)
    assert training.signs["steps"] < 12
    kill.finish(place)

    assert kill.compare(place) == []


def test_ctrl_c_ends_a_process_after_its_step(build_run: BuildRun, tmp_path: Path) -> None:
    config = build_run(train={"steps": 60, "batch_size": 1}, output={"save_every": 100})
    folder, output = config.output.folder, tmp_path / "said.txt"
    save_config(config, tmp_path / "run.toml")
    child = Weber(["train", str(tmp_path / "run.toml")], output=output)
    while not (folder / "metrics.jsonl").is_file() or len(read_losses(folder)) < 2:
        assert child.poll() is None, output.read_text()
        time.sleep(0.02)
    child.interrupt()
    assert child.wait() == 130
    said = output.read_text()
    assert "Stopping as soon as nothing is lost by it" in said.replace("\n", " ") and "Traceback" not in said
    assert f"weber train {folder / 'config.toml'} --resume" in said.replace("\n", "")
    [(step, _)] = list_checkpoints(folder)
    assert step == len(read_losses(folder)) < 60
    train(build_run(train={"steps": step + 1, "batch_size": 1}), resume=True, watcher=build_watcher()[0])
    assert [number for number, _, _ in read_losses(folder)] == list(range(1, step + 2))
