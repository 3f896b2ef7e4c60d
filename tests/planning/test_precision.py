"""`memory.dtype = "auto"` on a processor: bf16 where it was tried and is faster, and the same when a run goes on."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
import torch

from tests.runs import BuildRun, build_watcher
from tests.training.test_resume import read_losses, run_interrupted, run_whole
from weber.config.load import load_config
from weber.memory import probe
from weber.memory.probe import BlockSizes
from weber.planning import precision
from weber.planning.plan import build_plan
from weber.planning.precision import FILE_NAME
from weber.planning.report import build_report
from weber.training.assemble import train


class Trials:
    """A processor with units for bf16, on which every size is worth a trial; counts the trials."""

    def __init__(self, gain: float) -> None:
        self.gain, self.sizes = gain, list[BlockSizes]()

    def measure(self, sizes: BlockSizes, progress: Any) -> float:
        self.sizes.append(sizes)
        return self.gain


@pytest.fixture
def trials(monkeypatch: pytest.MonkeyPatch) -> Trials:
    made = Trials(2.0)
    monkeypatch.setattr(precision, "has_bf16_units", lambda: True)
    monkeypatch.setattr(precision, "measure_gain", made.measure)
    monkeypatch.setattr(probe, "_LEAST_FLOPS", 1.0)
    return made


def test_the_faster_is_taken_and_remembered(build_run: BuildRun, trials: Trials) -> None:
    plan = build_plan(build_run())
    assert plan.dtype == torch.bfloat16 and plan.resolved.memory.dtype == "bf16"
    assert "bf16 was tried at this run's sizes and takes 0.50 of the time of fp32 here" in build_report(plan)
    trials.gain = 0.5
    assert build_plan(build_run("again")).dtype == torch.bfloat16, "as it was found before"
    assert len(trials.sizes) == 1


def test_what_is_hardly_faster_is_not_taken(build_run: BuildRun, trials: Trials) -> None:
    trials.gain = 1.2
    plan = build_plan(build_run())
    assert plan.dtype == torch.float32 and plan.resolved.memory.dtype == "fp32"


@pytest.mark.parametrize(
    "sections",
    [{"memory": {"dtype": "fp32"}}, {"memory": {"dtype": "bf16"}}, {"adapter": {"kind": "full", "rank": 16}}],
    ids=["fp32", "bf16", "full"],
)
def test_nothing_is_tried_where_it_is_said_or_whole_weights_learn(build_run: BuildRun, trials: Trials, sections: dict[str, Any]) -> None:
    plan = build_plan(build_run(**sections))
    assert not trials.sizes and plan.machine.bf16_gain is None
    assert plan.dtype == (torch.bfloat16 if sections.get("memory") == {"dtype": "bf16"} else torch.float32)


def test_nothing_is_tried_without_such_units_or_for_small_models(
    build_run: BuildRun, trials: Trials, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(probe, "_LEAST_FLOPS", 1e9)
    assert build_plan(build_run()).dtype == torch.float32
    monkeypatch.setattr(probe, "_LEAST_FLOPS", 1.0)
    monkeypatch.setattr(precision, "has_bf16_units", lambda: False)
    assert build_plan(build_run("other")).resolved.memory.dtype == "auto" and not trials.sizes


@pytest.mark.parametrize("text", ["", "{", "[1]", json.dumps({"a": "b"})])
def test_a_damaged_memory_is_no_memory(build_run: BuildRun, trials: Trials, cache: Path, text: str) -> None:
    (cache / FILE_NAME).write_text(text)
    assert build_plan(build_run()).dtype == torch.bfloat16 and len(trials.sizes) == 1
    assert build_plan(build_run("again")).dtype == torch.bfloat16 and len(trials.sizes) == 1


def test_a_run_goes_on_in_the_precision_that_it_began_in(build_run: BuildRun, trials: Trials) -> None:
    sections = {"train": {"steps": 4, "batch_size": 1}, "output": {"save_every": 2}}
    whole = run_whole(build_run("whole", **sections))
    config = build_run("parts", **sections)
    folder, _ = run_interrupted(config, 2)
    trials.gain = 0.1
    train(config, resume=True, watcher=build_watcher()[0])
    assert read_losses(whole) == read_losses(folder) and len(trials.sizes) == 1
    assert load_config(folder / "config.toml").memory.dtype == "bf16"
