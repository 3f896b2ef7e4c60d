"""What a resumed run says, and what it refuses, before anything is loaded."""

from __future__ import annotations

import shutil
from pathlib import Path
from typing import Any

import pytest

from tests.runs import BuildRun, build_watcher
from weber.config.run import RunConfig
from weber.errors import CheckpointError, WeberError
from weber.training.assemble import train
from weber.training.resume import Resume, find_start


@pytest.fixture(scope="module")
def place(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder for the runs of this module."""
    return tmp_path_factory.mktemp("start")


@pytest.fixture
def finished(place: Path, build_small: BuildRun, tmp_path: Path) -> RunConfig:
    """A run of an epoch of three steps with a cosine and a picture, to be changed."""
    config = build_small(
        "run",
        train={"steps": None, "epochs": 1, "batch_size": 4},
        optim={"schedule": "cosine", "lr": 1e-3},
        sampling={"prompts": ["a dog"], "steps": 1},
    )
    if not (place / "run").exists():
        change(config, folder=place / "run").output.folder.parent.mkdir(exist_ok=True)
        train(change(config, folder=place / "run"), resume=False, watcher=build_watcher()[0])
    shutil.copytree(place / "run", config.output.folder)
    return config


def change(config: RunConfig, *, folder: Path | None = None, **sections: dict[str, Any]) -> RunConfig:
    if folder is not None:
        sections["output"] = {"folder": folder}
    return config.model_copy(update={name: getattr(config, name).model_copy(update=values) for name, values in sections.items()})


def resume(config: RunConfig, at: Resume = True) -> str:
    watcher, buffer = build_watcher()
    train(config, resume=at, watcher=watcher)
    return buffer.getvalue()


def test_a_longer_cosine_says_from_what_to_what_the_rate_jumps(finished: RunConfig) -> None:
    """After 3 of 3 steps a cosine is at 0, after 3 of 6 at the half; pictures of other prompts are moved, and that is said."""
    longer = change(finished, train={"epochs": 2}, sampling={"prompts": ["a cat"]})
    said = resume(longer)
    assert "The learning rate jumps from 0.00025 (cosine over 3 steps) to 0.0005 (cosine over 6 steps)." in said
    assert f"other prompts or settings; they are now in {finished.output.folder / 'pictures-1'}." in said


def test_the_same_run_does_not_jump(finished: RunConfig) -> None:
    assert "jumps" not in resume(finished)


def test_a_run_by_epochs_is_advised_in_epochs(finished: RunConfig) -> None:
    folder = finished.output.folder
    (folder / "checkpoint-000003").rename(folder / "checkpoint-000007")  # as if it had gone on into a third epoch
    with pytest.raises(CheckpointError) as caught:
        resume(finished)
    assert caught.value.fix == "set train.epochs to 3 or more"
    (folder / "checkpoint-000007").rename(folder / "checkpoint-000003")
    with pytest.raises(CheckpointError) as caught:
        resume(change(finished, optim={"lr": 1e-4}))
    assert caught.value.fix == "raise train.epochs above 1, or take the changes back"


def test_a_mistyped_folder_is_not_a_new_run(tmp_path: Path, build_small: BuildRun) -> None:
    runs = tmp_path / "runs"
    for name in ("portrait", "style-1"):
        (runs / name / "checkpoint-000040").mkdir(parents=True)
    watcher, buffer = build_watcher()
    with pytest.raises(CheckpointError, match=r"(?s)no such run folder.*portrait, which holds checkpoint-000040.*remove --resume"):
        find_start(runs / "protrait", True, watcher=watcher)
    assert find_start(runs / "style-2", True, watcher=watcher).step == 0  # the next of a series
    assert find_start(runs / "landscape", True, watcher=watcher).step == 0
    assert buffer.getvalue().count("starting at step 0") == 2


def test_damaged_checkpoints_are_not_started_over(tmp_path: Path) -> None:
    (tmp_path / "checkpoint-000003").mkdir()
    with pytest.raises(CheckpointError, match=r"(?s)not to be lost.*checkpoint-000003: manifest\.json cannot be read"):
        find_start(tmp_path, True, watcher=build_watcher()[0])


def test_a_chosen_checkpoint_that_is_damaged_is_named(finished: RunConfig) -> None:
    (finished.output.folder / "checkpoint-000003" / "optimizer.safetensors").write_bytes(b"half")
    for chosen in (3, "3", "checkpoint-000003", finished.output.folder / "checkpoint-000003"):
        with pytest.raises(WeberError, match=r"(?s)damaged.*optimizer\.safetensors is not as it was written"):
            resume(finished, chosen)
