"""Runs with a fault in them: the doctor finds it, says it once and everywhere, and finds nothing in a run without one."""

from __future__ import annotations

import json
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from PIL import Image
from safetensors import safe_open
from safetensors.torch import load_file, save_file

from tests.receiver import receiving
from tests.runs import BuildRun, build_watcher
from tests.shared import EXAMPLES
from weber.config.run import RunConfig
from weber.families.flux1.variants import POCKET
from weber.pages.facts import read_run
from weber.track.scores import FINDING, HELD_OUT
from weber.track.signals import GRADIENT, LIKENESS, NOISE, UPDATE
from weber.training.assemble import train

FEW = {"levels": [0.5], "pictures": 2}


def run_whole(
    build_small: BuildRun, name: str, *, data: dict[str, Any], steps: int = 2, webhooks: Any = (), **sections: Any
) -> tuple[RunConfig, str]:
    own = {
        "train": {"steps": steps, "batch_size": sections.pop("batch_size", 1)},
        "evaluation": {"every": steps} | sections.pop("evaluation", {}),
    }
    config = build_small(name, data=[{"resolution": 48} | data], **own, **sections)
    output = {"save_every": 1000, "webhooks": list(webhooks), "cache": str(config.output.cache), "folder": str(config.output.folder)}
    config = RunConfig.model_validate(config.model_dump(exclude_unset=True) | {"output": output})
    watcher, said = build_watcher()
    train(config, resume=False, watcher=watcher)
    return config, said.getvalue()


def read_readings(config: RunConfig) -> list[dict[str, Any]]:
    return [json.loads(line) for line in (config.output.folder / "readings.jsonl").read_text().splitlines()]


def list_found(config: RunConfig) -> list[str]:
    return [line[FINDING] for line in read_readings(config) if FINDING in line]


def copy_few(pictures: Path, folder: Path, *, number: int) -> Path:
    """Some of the pictures with their captions, in a folder of their own."""
    folder.mkdir()
    for text in sorted(pictures.glob("*.txt"))[:number]:
        for file in pictures.glob(f"{text.stem}.*"):
            shutil.copy(file, folder / file.name)
    return folder


def copy_model(folder: Path, *, part: str, closed: Callable[[str], bool]) -> Path:
    """The pocket model with some tensors of zeros, as of files that were never filled."""
    model = Path(shutil.copytree(POCKET, folder))
    for file in model.glob(f"{part}/*.safetensors"):
        with safe_open(file, "pt") as opened:
            metadata = opened.metadata()
        tensors = {name: torch.zeros_like(tensor) if closed(name) else tensor for name, tensor in load_file(file).items()}
        save_file(tensors, file, metadata=metadata)
    return model


def test_a_healthy_run(build_small: BuildRun) -> None:
    data, settings = {"evaluation": 0.25}, {"optim": {"lr": 5e-4}, "sampling": {"prompts": ["a dog", "a cat"], "steps": 1, "every": 6}}
    config, said = run_whole(build_small, "healthy", data=data, steps=6, evaluation=FEW | {"every": 3}, **settings)
    assert list_found(config) == [] and "Doctor" not in said and read_run(config.output.folder)["findings"] == []
    lines = read_readings(config)
    probes = [line for line in lines if any(name.startswith(UPDATE) for name in line)]
    assert [line["step"] for line in probes] == [1, 3, 6]
    groups = ("transformer_blocks", "single_transformer_blocks")
    assert all(0 < line[f"{UPDATE}{group}"] < 0.1 and line[f"{GRADIENT}{group}"] > 0 for line in probes for group in groups)
    steps = [json.loads(line) for line in (config.output.folder / "metrics.jsonl").read_text().splitlines()]
    whole = [steps[line["step"] - 1]["grad_norm"] for line in probes]
    assert [np.hypot(*(line[f"{GRADIENT}{group}"] for group in groups)) for line in probes] == pytest.approx(whole, rel=1e-4)
    assert [line["step"] for line in lines if NOISE in line and LIKENESS in line] == [0, 6]
    charts = read_run(config.output.folder)["readings"]
    assert [one["title"].split(",")[0] for one in charts] == [
        "loss on pictures that are held out",
        "loss on pictures that are held out",
        "loss in training",
        "gradients",
        "how far a step moves the weights",
    ]
    assert charts[0]["series"][0] == ["held out", [[line["step"], line[HELD_OUT]] for line in lines if HELD_OUT in line]]


def test_a_rate_that_is_much_too_high(build_small: BuildRun) -> None:
    """What is found is told once, however often it is there."""
    with receiving() as raw:
        config, said = run_whole(
            build_small,
            "wild",
            data={"evaluation": 0.25},
            steps=10,
            webhooks=[{"kind": "raw", "url": raw.url}],
            evaluation=FEW | {"every": 5},
            optim={"lr": 1.0},
            sampling={"prompts": ["a dog", "a red apple"], "steps": 4, "every": 10},
        )
    found = list_found(config)
    assert {"rising_loss", "weights_move_too_far", "painted_noise"} <= set(found) and found.count("weights_move_too_far") == 2
    assert said.count("Doctor, after step 5: step 1 moved the weights of") == 1 and "lower optim.lr." in said
    told = [one for one in raw.events if one["type"] == "finding"]
    assert sorted(one["data"]["finding"] for one in told) == sorted(set(found)) and all(one["severity"] == "warning" for one in told)
    rows = read_run(config.output.folder)["findings"]
    assert [row[:2] for row in rows if row[2].startswith("step 1 moved")] == [[5, 10]]


def test_gradients_that_explode(build_small: BuildRun) -> None:
    """The model itself, at a rate that grows until nothing holds it."""
    optim, adapter = {"lr": 0.1, "warmup_steps": 35}, {"kind": "full", "rank": 16}
    config, said = run_whole(build_small, "exploding", data={"resolution": 32}, steps=36, optim=optim, adapter=adapter)
    assert "exploding_gradients" in list_found(config) and "gradients have grown to" in said and "lower optim.lr to a third" in said


def test_blocks_that_no_gradient_reaches(build_small: BuildRun, tmp_path: Path) -> None:
    """Weights of a file whose gates are zero: what is behind them learns nothing."""
    model = copy_model(tmp_path / "model", part="transformer", closed=lambda name: name.startswith("single_") and ".norm.linear" in name)
    config, said = run_whole(build_small, "vanishing", data={}, model={"path": str(model)})
    assert list_found(config) == ["vanishing_gradients"] and "no gradient reaches single_transformer_blocks" in said


def test_one_picture_for_all_prompts(build_small: BuildRun, tmp_path: Path) -> None:
    """The model itself learns a single picture, until it paints nothing else."""
    folder = copy_few(EXAMPLES / "fluent", tmp_path / "one", number=1)
    for text in folder.glob("*.txt"):
        text.write_text("a thing")
    sampling = {"prompts": ["a dog", "a cat"], "steps": 4, "every": 40, "width": 32, "height": 32}
    optim, adapter = {"lr": 3e-3, "schedule": "cosine"}, {"kind": "full", "rank": 16}
    data = {"path": str(folder), "resolution": 32}
    config, said = run_whole(build_small, "alone", data=data, steps=40, optim=optim, adapter=adapter, sampling=sampling)
    assert list_found(config) == ["painted_collapse"] and "pictures of different prompts have become one picture" in said


def test_a_rate_of_nothing(build_small: BuildRun) -> None:
    config, said = run_whole(build_small, "still", data={}, optim={"lr": 1e-12})
    assert list_found(config) == ["weights_hardly_move"] and "raise optim.lr a hundredfold." in said


def test_two_pictures_learned_by_heart(build_small: BuildRun) -> None:
    data = {"limit": 5, "evaluation": 0.6}
    config, said = run_whole(build_small, "heart", data=data, steps=16, evaluation=FEW | {"every": 8}, optim={"lr": 1e-2})
    assert list_found(config) == ["over_fitting"] and "those that are held out" in said


def test_a_picture_of_noise_among_others(build_small: BuildRun, pictures: Path, tmp_path: Path) -> None:
    folder = copy_few(pictures, tmp_path / "with noise", number=5)
    noise = np.random.default_rng(0).integers(0, 2, (12, 12, 3), dtype=np.uint8) * 255
    Image.fromarray(noise).resize((96, 96), Image.Resampling.NEAREST).save(folder / "noise.png")
    (folder / "noise.txt").write_text("a cat")
    config, said = run_whole(build_small, "noise", data={"path": str(folder)}, steps=12, batch_size=6, optim={"lr": 5e-3})
    assert list_found(config) == ["stuck_pictures"] and "the loss of noise.png (" in said


def test_a_text_encoder_that_says_nothing(build_small: BuildRun, tmp_path: Path) -> None:
    """Captions that are all the same to the model: with weights of zero, as of a file that was never filled."""
    model = copy_model(tmp_path / "model", part="text_encoder*", closed=lambda name: True)
    config, said = run_whole(build_small, "deaf", data={"evaluation": 0.25}, evaluation=FEW, model={"path": str(model)})
    assert list_found(config) == ["idle_captions"] and "captions make no difference" in said
