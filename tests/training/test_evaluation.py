"""The loss on pictures that are held out: it moves only because the weights do, and the run is the same without it."""

from __future__ import annotations

import json
import shutil
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import load_file
from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

from tests.receiver import receiving
from tests.runs import BuildRun, build_watcher
from weber.config.output import OutputConfig
from weber.config.run import RunConfig
from weber.planning.plan import build_plan
from weber.planning.report import build_report
from weber.track.scores import EMPTY, HELD_OUT, LEARNED, MEASURED
from weber.training.assemble import train

OFTEN = {"every": 2, "levels": [0.2, 0.8], "pictures": 2}


def run_whole(config: RunConfig, *, resume: Any = False) -> str:
    watcher, buffer = build_watcher()
    train(config, resume=resume, watcher=watcher)
    return buffer.getvalue()


def read_lines(folder: Path, name: str, *, file: str = "readings.jsonl") -> dict[int, dict[str, Any]]:
    lines = [json.loads(line) for line in (folder / file).read_text().splitlines()]
    return {line["step"]: line for line in lines if name in line}


def test_the_run_is_the_same_with_and_without_it(build_small: BuildRun) -> None:
    """The pictures that are held out are the same; only how often they are measured differs."""
    pictures = [{"resolution": 64, "evaluation": 0.2, "caption_dropout": 0.5}]
    settings = {"data": pictures, "optim": {"lr": 1e-3, "ema_decay": 0.5}, "adapter": {"rank": 4, "dropout": 0.5}}
    often = build_small("often", **settings, evaluation=OFTEN | {"weights": "ema"})
    seldom = build_small("seldom", **settings, evaluation={"every": 1000, "pictures": 1, "levels": [0.5]})
    said = run_whole(often)
    run_whole(seldom)
    losses = [[line["loss"] for line in read_lines(one.output.folder, "loss", file="metrics.jsonl").values()] for one in (often, seldom)]
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
    """Of another seed, other batches, routes and rollouts, and at a rate of almost nothing, the numbers are those of the start."""
    still = {"data": [{"resolution": 64, "evaluation": 0.2}], "optim": {"lr": 1e-12}, "evaluation": OFTEN}
    found = []
    others = {"tread": [{"ratio": 0.5, "first": 1, "last": -2}], "rollout": {"probability": 1.0}}
    for seed, objective in ((1, {}), (2, others)):
        config = build_small(f"seed{seed}", **still, objective=objective, train={"steps": 2, "batch_size": seed, "seed": seed})
        run_whole(config)
        found += list(read_lines(config.output.folder, HELD_OUT).values())
    assert [one["step"] for one in found] == [0, 2, 0, 2] and len({one[MEASURED] for one in found}) == 1
    for one in found[1:]:
        assert one.keys() == found[0].keys()
        assert all(one[key] == pytest.approx(found[0][key], rel=1e-5) for key in one if key not in ("step", MEASURED))


def test_a_run_that_goes_on_measures_the_same(build_small: BuildRun) -> None:
    """What was not measured before the run was killed is measured when it goes on, and nothing twice."""
    config = build_small("killed", data=[{"resolution": 64, "evaluation": 0.2}], evaluation=OFTEN)
    run_whole(config)
    folder, readings = config.output.folder, config.output.folder / "readings.jsonl"
    whole = read_lines(folder, HELD_OUT)
    kept = [line for line in readings.read_text().splitlines() if json.loads(line)["step"] < 2]
    readings.write_text("".join(f"{line}\n" for line in kept))
    shutil.rmtree(folder / "checkpoint-000004")
    (folder / "adapter.safetensors").unlink()
    run_whole(config, resume=True)
    assert list(whole) == [0, 2, 4] and read_lines(folder, HELD_OUT) == whole
    assert [json.loads(line)["step"] for line in readings.read_text().splitlines()].count(0) == 1


def test_a_set_of_its_own_is_held_out_as_a_whole_and_others_are_told(
    build_small: BuildRun, small_cache: Path, pictures: Path, tmp_path: Path
) -> None:
    other = Path(shutil.copytree(pictures, tmp_path / "other"))
    data = [{"resolution": 64}, {"path": str(other), "resolution": 64, "evaluation": 1.0}]
    with receiving() as raw:
        output = {"webhooks": [{"kind": "raw", "url": raw.url}], "trackers": ["tensorboard"], "cache": small_cache, "save_every": 4}
        config = build_small("own", data=data, evaluation=OFTEN)
        config = config.model_copy(update={"output": OutputConfig(**output, folder=config.output.folder)})
        plan = build_plan(config)
        run_whole(config)
    assert len(plan.dataset.examples) == len(plan.dataset.held_out) == 12
    assert {one.set_name for one in plan.dataset.examples}.isdisjoint({one.set_name for one in plan.dataset.held_out})
    report = build_report(plan)
    assert "other: 12 pictures held out, 0 learned" in report
    assert "measured every 2 steps: 2 that are held out and 2 that are learned, at 2 noise levels; 12 forward passes" in report
    assert "evaluating 64 x 64" in report and "held out that the set pictures learns too" in report

    found = read_lines(config.output.folder, HELD_OUT)
    assert list(found) == [0, 2, 4] and found[0][HELD_OUT] == pytest.approx(found[0][LEARNED]), "the pictures are copies"
    told = [one for one in raw.events if one["type"] == "evaluation"]
    assert [one["data"]["step"] for one in told] == [0, 2, 4] and told[2]["data"][HELD_OUT] == found[4][HELD_OUT]
    events = EventAccumulator(str(config.output.folder / "tensorboard"))
    events.Reload()
    assert [one.step for one in events.Scalars(f"{LEARNED}/0.8")] == [0, 2, 4]
