"""In how many ways the pictures of a run are painted, and when: files, sheets, and what a run may not ask for."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from numpy.typing import NDArray
from PIL import Image
from safetensors.torch import load_file
from torch import equal

from tests.runs import BuildRun, build_watcher
from tests.training.test_resume import read_losses
from weber.config.run import RunConfig
from weber.errors import ConfigError
from weber.pages.facts import read_run
from weber.planning.plan import build_plan
from weber.planning.report import build_report
from weber.training.assemble import train

SHORT: dict[str, Any] = {"train": {"steps": 2, "batch_size": 1}, "optim": {"lr": 1e-2}}
FULL = {"kind": "full", "rank": 16}


def run(config: RunConfig) -> Path:
    """The folder of a finished run."""
    return train(config, resume=False, watcher=build_watcher()[0]).parent


def read(folder: Path, step: int) -> dict[str, tuple[NDArray[np.uint8], dict[str, Any]]]:
    """The pictures of a step, with what they say of themselves."""
    found = {}
    for path in sorted((folder / "pictures" / f"step-{step:06d}").iterdir()):
        with Image.open(path) as picture:
            found[path.stem] = np.asarray(picture), json.loads(picture.info["weber"])
    return found


def check_undisturbed(plain: Path, other: Path) -> None:
    """Losses and what was learned are those of the run without pictures, bit for bit."""
    assert read_losses(plain) == read_losses(other)
    first, second = (load_file(folder / "adapter.safetensors") for folder in (plain, other))
    assert first.keys() == second.keys() and all(equal(first[name], second[name]) for name in first)


@pytest.fixture
def plain(build_small: BuildRun) -> Path:
    """A run without pictures."""
    return run(build_small("plain", **SHORT))


def test_each_prompt_in_each_size_and_with_each_seed(plain: Path, tmp_path: Path, build_small: BuildRun) -> None:
    library = tmp_path / "prompts.toml"
    library.write_text('cat = {prompt = "a cat", seed = 7}\nred-apple = {prompt = "red apple", sizes = ["64x32", "32x32"], seeds = [8, 9]}\n')
    sampling: dict[str, Any] = {"prompts": ["a dog"], "library": str(library), "steps": 1, "every": 9}
    config = build_small("run", **SHORT, sampling=sampling | {"sizes": ["64x64", "96 x 64"], "seeds": [1, 2]})
    assert "10 pictures of 64 x 64, 96 x 64, 64 x 32, 32 x 32 and a sheet each" in build_report(build_plan(config))
    folder = run(config)
    check_undisturbed(plain, folder)
    said = read(folder, 2)
    dogs = [f"00-{size}-seed{seed}" for size in ("64x64", "96x64") for seed in (1, 2)]
    apples = [f"red-apple-{size}-seed{seed}" for size in ("64x32", "32x32") for seed in (8, 9)]
    assert sorted(said) == sorted([*dogs, "cat-64x64", "cat-96x64", *apples])
    for name, (pixels, made) in said.items():
        assert f"{made['size'][0]}x{made['size'][1]}" in name and pixels.shape == (made["size"][1], made["size"][0], 3)
        assert made["seed"] == (7 if name.startswith("cat") else int(name[-1]))
    assert not np.array_equal(said["00-64x64-seed1"][0], said["00-64x64-seed2"][0])
    [single] = read(run(build_small("one", **SHORT, sampling=sampling | {"library": None, "seed": 2})), 2).values()
    assert np.array_equal(single[0], said["00-64x64-seed2"][0])
    facts = read_run(folder)
    assert facts["prompts"][:2] == ["a dog (64x64, seed1)", "a dog (64x64, seed2)"] and facts["seeds"][:2] == [1, 2]
    assert "a cat (96x64)" in facts["prompts"] and "red apple (32x32, seed9)" in facts["prompts"]


@pytest.mark.parametrize(
    ("sampling", "words"),
    [
        ({"sizes": ["64x64", "100x64", "64x9000"]}, ['"100x64", "64x9000"', 'write "96x64", "64x8192"']),
        ({"sizes": ["64x64"], "width": 64}, ["width has no effect beside sizes"]),
        ({"sizes": ["64x64", "64 x 64"]}, ["64x64 is there twice"]),
        ({"sizes": ["64"]}, ["sampling.sizes"]),
        ({"seeds": [3], "seed": 4}, ["seed has no effect beside seeds"]),
        ({"seeds": [3, 3]}, ["3 is there twice"]),
        ({"seeds": [-3]}, ["sampling.seeds"]),
    ],
)
def test_what_pictures_cannot_be(build_small: BuildRun, sampling: dict[str, Any], words: list[str]) -> None:
    with pytest.raises(ConfigError) as error:
        build_plan(build_small("run", sampling={"prompts": ["a dog"], **sampling}))
    for word in words:
        assert word in str(error.value), str(error.value)
