"""Runs in which tokens skip blocks, and runs in which the padding behind captions is hidden: from the settings to pictures."""

from __future__ import annotations

import json
import shutil
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from PIL import Image, ImageDraw

from tests.planning.test_budget import FLUX1, SQUARE, _build_config, _build_workload
from tests.runs import BuildRun, build_watcher
from weber.cache.store import Store
from weber.checkpoint.resume import Found
from weber.config.run import RunConfig
from weber.errors import CheckpointError, ConfigError
from weber.families.family import Condition
from weber.memory import simulate
from weber.planning import limits
from weber.planning.budget import build_estimate
from weber.planning.plan import build_plan
from weber.planning.rehearsal import Sample
from weber.planning.report import build_report
from weber.pocket.random_flux3 import build_random_flux3
from weber.training.assemble import assemble, encode_cache, train
from weber.training.bench import Case, measure_case
from weber.training.paint import Wish, sample
from weber.training.question import build_question, draw_timesteps

TREAD = {"tread": [{"ratio": 0.5, "first": 1, "last": 3}, {"ratio": 0.25, "first": 5, "last": -2}]}
MODES: dict[str, dict[str, Any]] = {
    "all": {"gradient_checkpointing": "all"},
    "every second block": {"gradient_checkpointing": 2},
    "lean": {"gradient_checkpointing": "lean"},
    "everything": {"swap_blocks": 3, "offload_activations": True, "modulation": "host"},
}
PAINTING = {"prompts": ["a dog"], "steps": 2, "every": 2}


def run(config: RunConfig, *, resume: bool = False) -> tuple[list[float], bytes]:
    """Losses of all steps, and the weights in the finished adapter."""
    train(config, resume=resume, watcher=build_watcher()[0])
    losses = [json.loads(line)["loss"] for line in (config.output.folder / "metrics.jsonl").read_text().splitlines()]
    return losses, (config.output.folder / "adapter.safetensors").read_bytes()[-1000:]


def read_pictures(config: RunConfig) -> list[bytes]:
    return [path.read_bytes() for path in sorted((config.output.folder / "pictures").rglob("00.png"))]


def draw_masks(pictures: Path, folder: Path) -> Path:
    """White in a corner of every other picture."""
    folder.mkdir()
    for path in sorted(pictures.glob("*.png"))[::2]:
        mask = Image.new("L", Image.open(path).size)
        ImageDraw.Draw(mask).rectangle((0, 0, 40, 60), fill=255)
        mask.save(folder / path.name)
    return folder


@pytest.fixture(scope="module")
def cache(tmp_path_factory: pytest.TempPathFactory, encoded: Path) -> Path:
    """A folder for what the encoders have made for all tests here."""
    return Path(shutil.copytree(encoded, tmp_path_factory.mktemp("tread") / "cache"))


@pytest.fixture(scope="module")
def found() -> dict[str, Any]:
    """Results of runs that several tests compare with, by name."""
    return {}


@pytest.mark.parametrize("mode", MODES)
def test_ways_of_keeping_less_change_no_bit(mode: str, build_run: BuildRun, found: dict[str, Any], monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(limits, "_check_device", lambda config, device: None)
    settings = {"train": {"steps": 2, "batch_size": 2}, "objective": TREAD}
    if "plain" not in found:
        found["plain"] = run(build_run("plain", memory={"gradient_checkpointing": "none"}, **settings))
    assert run(build_run("mode", memory=MODES[mode], **settings)) == found["plain"]


def test_only_training_is_routed(build_run: BuildRun) -> None:
    """Other losses, but with a ratio of 0 the same; the base model's picture, painted by the same network, is always the same."""
    settings = {"train": {"steps": 2, "batch_size": 2}, "sampling": PAINTING}
    runs = {
        name: build_run(name, objective={"tread": tread}, **settings)
        for name, tread in (("plain", []), ("none", [{"ratio": 0.0, "first": 0, "last": -1}]), ("routed", TREAD["tread"]))
    }
    results = {name: run(config) for name, config in runs.items()}
    assert results["plain"] == results["none"]
    assert not set(results["plain"][0]) & set(results["routed"][0])
    pictures = {name: read_pictures(config) for name, config in runs.items()}
    assert pictures["plain"] == pictures["none"]
    assert len(pictures["plain"]) == 2 and pictures["plain"][0] == pictures["routed"][0] != pictures["routed"][1]


def test_two_and_two_are_four(build_run: BuildRun, pictures: Path, tmp_path: Path) -> None:
    sections: dict[str, Any] = {
        "data": [{"loss_masks": str(draw_masks(pictures, tmp_path / "masks")), "crop": "random"}],
        "objective": TREAD,
        "output": {"save_every": 2},
    }

    def build(name: str, steps: int) -> RunConfig:
        return build_run(name, **sections, train={"steps": steps, "batch_size": 2, "accumulation": 2})

    whole = run(build("whole", 4))
    run(build("parts", 2))
    assert run(build("parts", 4), resume=True) == whole
    other = build_run("parts", **sections | {"objective": {"tread": TREAD["tread"][:1]}}, train={"steps": 4, "batch_size": 2})
    with pytest.raises(CheckpointError, match="tread"):
        train(other, resume=True, watcher=build_watcher()[0])


def test_what_a_mask_asks_for_is_never_left_out(build_run: BuildRun, pictures: Path, tmp_path: Path) -> None:
    """Of 4 x 4 tokens of 16 pixels the mask, 27 x 41 of 64 pixels, touches 2 x 3. Others are drawn anew for each step, whatever else is."""
    data = [{"loss_masks": str(draw_masks(pictures, tmp_path / "masks"))}, {"path": str(pictures), "name": "kept", "regularization": True}]
    config = build_run(data=data, objective=TREAD, train={"steps": 12, "batch_size": 2})
    plan, (watcher, _) = build_plan(config), build_watcher()
    store = Store(plan.resolved.output.cache)
    encode_cache(plan, store, watcher=watcher)
    training = assemble(plan, store, start=Found(0, None, {}), watcher=watcher)
    told: list[tuple[str, Condition]] = []
    with training.loader as loader:
        for step in range(12):
            batches = loader.load(step)
            for batch, t_B in zip(batches, draw_timesteps(training.learner, batches, step=step), strict=True):
                kind = "kept" if batch.is_regularization else "whole" if batch.mask_B1HW is None else "masked"
                conditions = [build_question(training.learner, batch, t_B=t_B, step=step).condition for _ in range(2)]
                assert all(torch.equal(conditions[0][name], conditions[1][name]) for name in conditions[0])
                told.append((kind, conditions[0]))
    assert {kind for kind, _ in told} == {"kept", "whole", "masked"}
    for kind, condition in told:
        assert ("route_scores" in condition) is (kind != "kept")
        assert ("route_kept" in condition) is (kind == "masked")
        if kind == "masked":
            kept = condition["route_kept"].view(4, 4).int()
            assert kept.tolist() == [[1, 1, 0, 0], [1, 1, 0, 0], [1, 1, 0, 0], [0, 0, 0, 0]]
    scores = [tuple(condition["route_scores"].tolist()) for kind, condition in told if kind != "kept"]
    assert len(scores[0]) == 16 and len(set(scores)) == len(scores)


@pytest.mark.parametrize(
    ("tread", "words"),
    [
        ([{"ratio": 0.5, "first": 2, "last": 8}], ["objective.tread.0.last = 8", "0 to 7"]),
        ([{"ratio": 0.5, "first": 5, "last": -5}], ["ends before it begins", "of 8"]),
        ([{"ratio": 0.5}, {"ratio": 0.2, "first": 4, "last": 6}], ["share blocks", "blocks 2 to 5, and 4 to 6"]),
    ],
)
def test_routes_that_cannot_be_are_refused_before_anything_is_read(tread: list[Any], words: list[str], build_run: BuildRun) -> None:
    with pytest.raises(ConfigError) as error:
        build_plan(build_run(objective={"tread": tread}, output={"cache": "/nowhere"}))
    assert all(word in str(error.value) for word in words), str(error.value)


def test_models_that_cannot_be_routed_or_hide_padding_say_so(build_run: BuildRun, tmp_path: Path) -> None:
    model = {"path": str(build_random_flux3(tmp_path / "third")), "variant": None}
    with pytest.raises(ConfigError, match="No token can skip blocks of the model"):
        build_plan(build_run(model=model, objective=TREAD))
    with pytest.raises(ConfigError, match="take no text mask"):
        build_plan(build_run(model=model, objective={"text_mask": True}))


def test_the_plan_says_who_sees_what(build_run: BuildRun) -> None:
    plain, routed = (build_plan(build_run(objective=objective)) for objective in ({}, TREAD))
    report = build_report(routed)
    assert "blocks 1 to 3 of 0 to 7 see 8 of 16 tokens of a picture of 64 x 64" in report
    assert "blocks 5 to 6 of 0 to 7 see 12 of 16 tokens" in report
    flops = [build_estimate(plan.config, plan.workload).work.num_flops for plan in (plain, routed)]
    assert flops[1] < 0.9 * flops[0]


def test_pictures_whose_mask_may_be_all_are_estimated_whole(build_run: BuildRun, pictures: Path, tmp_path: Path) -> None:
    masks = {"loss_masks": str(draw_masks(pictures, tmp_path / "masks"))}
    plans = [build_plan(build_run(data=[data], objective=objective)) for data, objective in ((masks, {}), ({}, TREAD), (masks, TREAD))]
    assert [{one.is_whole for one in plan.workload.samples} for plan in plans] == [{False}, {False}, {False, True}]


def test_whole_pictures_count_as_without_routes(tmp_path: Path) -> None:
    tread = [{"ratio": 0.5, "first": 1, "last": -2}]
    whole, routed = Sample(512, 512, is_whole=True), Sample(512, 512)
    found = {}
    for name, settings, samples in (
        ("plain", {}, {routed: 1}),
        ("whole", {"tread": tread}, {whole: 1}),
        ("routed", {"tread": tread}, {routed: 1}),
        ("both", {"tread": tread}, {routed: 1, whole: 1}),
    ):
        config = _build_config(memory={"gradient_checkpointing": "none"}, objective=settings)
        found[name] = build_estimate(config, _build_workload(tmp_path / name, "flux1-dev", config, changes=FLUX1, samples=samples))
    assert found["whole"].peak == found["plain"].peak == found["both"].peak
    assert found["whole"].work == found["plain"].work == found["both"].work
    assert found["routed"].work.num_flops < 0.8 * found["whole"].work.num_flops


@pytest.mark.parametrize("mode", ["none", "lean"])
def test_few_blocks_stand_for_all(mode: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    tread = [{"ratio": 0.5, "first": 1, "last": 8}, {"ratio": 0.75, "first": 9, "last": -2}]
    config = _build_config(memory={"gradient_checkpointing": mode}, objective={"tread": tread})
    changes = {**FLUX1, "num_layers": 6, "num_single_layers": 9}
    workload = _build_workload(tmp_path, "flux1-dev", config, changes=changes, samples={Sample(256, 256): 1})
    few = build_estimate(config, workload)
    monkeypatch.setattr(simulate, "_NUM_ALIKE", 99)
    every = build_estimate(config, workload)
    assert few.work == every.work
    assert few.peak.num_bytes == pytest.approx(every.peak.num_bytes, rel=1e-9)


def test_the_estimate_is_what_a_real_step_takes() -> None:
    tread = [{"ratio": 0.5, "first": 1, "last": -2}]
    settings: dict[str, Any] = {"memory": {"gradient_checkpointing": "none"}, "objective": {"tread": tread}}
    found = measure_case(Case("flux1-dev", 384, settings, FLUX1), device="cpu", num_steps=1)
    assert found.estimated_bytes == pytest.approx(found.peak_bytes, rel=0.1)


def test_work_and_time_fall_at_full_size(tmp_path: Path) -> None:
    estimates = []
    for tread in ([], [{"ratio": 0.5, "first": 2, "last": -3}]):
        config = _build_config(memory={"gradient_checkpointing": "none"}, objective={"tread": tread})
        workload = _build_workload(tmp_path / str(len(tread)), "flux1-dev", config, samples={SQUARE: 1})
        estimates.append(build_estimate(config, workload))
    plain, routed = estimates
    assert 1 - routed.work.num_flops / plain.work.num_flops == pytest.approx(0.483, abs=0.001)
    assert routed.time.seconds < 0.6 * plain.time.seconds
    assert routed.find("training").parts["activations"] < 0.6 * plain.find("training").parts["activations"]


def test_hidden_padding_from_the_settings_to_the_picture(build_run: BuildRun) -> None:
    """Training and pictures see the mask; what was encoded without one stays valid, and `weber sample` paints as the run did."""
    settings = {"train": {"steps": 2, "batch_size": 2}, "sampling": PAINTING | {"seed": 3, "cfg": 2.0, "negative_prompt": "a cat"}}
    plain, masked = build_run("plain", **settings), build_run("masked", objective={"text_mask": True}, **settings)
    plain_losses, _ = run(plain)
    masked_losses, _ = run(masked)
    assert all(abs(one - other) > 1e-6 for one, other in zip(plain_losses, masked_losses, strict=True))
    pictures = read_pictures(plain), read_pictures(masked)
    assert len(pictures[0]) == 2 and all(one != other for one, other in zip(*pictures, strict=True))
    watcher, said = build_watcher()
    [painted] = sample(masked.output.folder, Wish(["a dog"], steps=2), watcher=watcher)
    last = sorted((masked.output.folder / "pictures").rglob("00.png"))[-1]
    assert np.array_equal(np.asarray(painted), np.asarray(Image.open(last)))
    for config in (plain, masked):
        plan = build_plan(config)
        encoded = encode_cache(plan, Store(plan.resolved.output.cache), watcher=watcher)
        assert (encoded.latents, encoded.texts) == (0, 0)
    assert "the padding behind captions is hidden" in build_report(plan)


def test_hidden_padding_in_modes(build_run: BuildRun) -> None:
    """Steps with a mask keep the same bits, with tokens that skip blocks too."""
    settings: dict[str, Any] = {"train": {"steps": 2, "batch_size": 2}, "objective": {"text_mask": True, **TREAD}}
    plain = run(build_run("none", memory={"gradient_checkpointing": "none"}, **settings))
    for mode in ("lean", "all"):
        assert run(build_run(mode, memory={"gradient_checkpointing": mode}, **settings)) == plain
