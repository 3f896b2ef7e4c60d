"""The loss on pictures that are held out: it moves only because the weights do, and the run is the same without it."""

from __future__ import annotations

import json
import shutil
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import load_file

from tests.receiver import receiving
from tests.runs import BuildRun, build_watcher
from weber.config.run import RunConfig
from weber.planning.plan import build_plan
from weber.planning.report import build_report
from weber.track.scores import EMPTY, HELD_OUT, LEARNED
from weber.training.assemble import train

OFTEN = {"every": 2, "levels": [0.2, 0.8], "pictures": 2}


def run_whole(config: RunConfig, *, resume: Any = False) -> str:
    watcher, buffer = build_watcher()
    train(config, resume=resume, watcher=watcher)
    return buffer.getvalue()


def read_lines(folder: Path, name: str) -> dict[int, dict[str, Any]]:
    lines = [json.loads(line) for line in (folder / "metrics.jsonl").read_text().splitlines()]
    return {line["step"]: line for line in lines if name in line}


def test_the_run_is_the_same_with_and_without_it(build_small: BuildRun, small_cache: Path) -> None:
    """The pictures that are held out are the same; only how often they are measured differs."""
    pictures = [{"resolution": 64, "evaluation": 0.2, "caption_dropout": 0.5}]
    settings = {"data": pictures, "optim": {"lr": 1e-3, "ema_decay": 0.5}, "adapter": {"rank": 4, "dropout": 0.5}}
    often = build_small("often", **settings, evaluation=OFTEN | {"weights": "ema"})
    seldom = build_small("seldom", **settings, evaluation={"every": 1000, "pictures": 1, "levels": [0.5]})
    said = run_whole(often)
    run_whole(seldom)
    losses = [[line["loss"] for line in read_lines(one.output.folder, "loss").values()] for one in (often, seldom)]
    assert len(losses[0]) == 4 and losses[0] == losses[1]
    for name in ("adapter.safetensors", "checkpoint-000004/optimizer.safetensors"):
        mine, theirs = (load_file(one.output.folder / name) for one in (often, seldom))
        assert mine.keys() == theirs.keys() and all(torch.equal(mine[key], theirs[key]) for key in mine)

    found = read_lines(often.output.folder, HELD_OUT)
    assert list(found) == [0, 2, 4] and list(read_lines(seldom.output.folder, HELD_OUT)) == [0, 4]
    assert all({HELD_OUT, LEARNED, EMPTY, f"{HELD_OUT}/0.2", f"{LEARNED}/0.8"} <= line.keys() for line in found.values())
    assert found[0][HELD_OUT] == pytest.approx((found[0][f"{HELD_OUT}/0.2"] + found[0][f"{HELD_OUT}/0.8"]) / 2)
    assert found[0][HELD_OUT] != found[4][HELD_OUT] and found[0][EMPTY] != found[0][HELD_OUT]
    assert "Evaluation after step 4: loss" in said and "since the start)" in said and "10 pictures in 1 bucket, 2 held out" in said


def test_the_numbers_move_only_with_the_weights(build_small: BuildRun) -> None:
    """Of another seed, other batches and a rate of almost nothing, the numbers are those of the start."""
    still = {"data": [{"resolution": 64, "evaluation": 0.2}], "optim": {"lr": 1e-12}, "evaluation": OFTEN}
    found = []
    for seed in (1, 2):
        config = build_small(f"seed{seed}", **still, train={"steps": 2, "batch_size": seed, "seed": seed})
        run_whole(config)
        found += [{key: value for key, value in line.items() if key != "step"} for line in read_lines(config.output.folder, HELD_OUT).values()]
    assert len(found) == 4
    for one in found[1:]:
        assert one.keys() == found[0].keys()
        assert all(one[key] == pytest.approx(found[0][key], rel=1e-5) for key in one if key.count("/") < 3 and "of" not in key)


def test_a_run_that_goes_on_measures_the_same(build_small: BuildRun, tmp_path: Path) -> None:
    settings = {"data": [{"resolution": 64, "evaluation": 0.2}], "evaluation": OFTEN}
    whole = build_small("whole", **settings)
    run_whole(whole)
    parts = build_small("parts", **settings)
    shutil.copytree(whole.output.folder, parts.output.folder)
    for path in (parts.output.folder / "checkpoint-000004", parts.output.folder / "adapter.safetensors"):
        shutil.rmtree(path) if path.is_dir() else path.unlink()
    run_whole(parts, resume=True)
    assert read_lines(parts.output.folder, HELD_OUT) == read_lines(whole.output.folder, HELD_OUT)

    # what was not measured before the run was killed is measured when it goes on
    metrics = parts.output.folder / "metrics.jsonl"
    metrics.write_text("".join(f"{line}\n" for line in metrics.read_text().splitlines() if json.loads(line)["step"] < 2))
    shutil.rmtree(parts.output.folder / "checkpoint-000004")
    (parts.output.folder / "adapter.safetensors").unlink()
    run_whole(parts, resume=True)
    assert read_lines(parts.output.folder, HELD_OUT) == read_lines(whole.output.folder, HELD_OUT)


def test_a_set_of_its_own_is_held_out_as_a_whole(build_small: BuildRun, pictures: Path, tmp_path: Path) -> None:
    other = Path(shutil.copytree(pictures, tmp_path / "other"))
    config = build_small("own", data=[{"resolution": 64}, {"path": str(other), "resolution": 64, "evaluation": 1.0}], evaluation=OFTEN)
    plan = build_plan(config)
    assert len(plan.dataset.examples) == len(plan.dataset.held_out) == 12
    assert {one.set_name for one in plan.dataset.examples}.isdisjoint({one.set_name for one in plan.dataset.held_out})
    report = build_report(plan)
    assert "other: 12 pictures held out, 0 learned" in report
    assert "measured every 2 steps: 2 that are held out and 2 that are learned, at 2 noise levels; 12 forward passes" in report
    assert "evaluating 64 x 64" in report and "12 pictures (" in report and "held out that the set pictures learns too" in report
    run_whole(config)
    assert list(read_lines(config.output.folder, HELD_OUT)) == [0, 2, 4]


def test_others_are_told(build_small: BuildRun) -> None:
    with receiving() as raw:
        webhooks = [{"kind": "raw", "url": raw.url}]
        config = build_small("told", data=[{"resolution": 64, "evaluation": 0.2}], evaluation=OFTEN)
        config = config.model_copy(update={"output": config.output.model_validate(config.output.model_dump() | {"webhooks": webhooks, "tensorboard": True})})
        run_whole(config)
    told = [one for one in raw.events if one["type"] == "evaluation"]
    assert [one["data"]["step"] for one in told] == [0, 2, 4] and HELD_OUT in told[0]["data"]
