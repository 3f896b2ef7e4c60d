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
    apple = 'red-apple = {prompt = "red apple", sizes = ["64x32", "32x32"], seeds = [8, 9]}'
    library.write_text(f'cat = {{prompt = "a cat", seed = 7}}\n{apple}\n')
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
        ({"strengths": [0.5, 0.5]}, ["0.5 is there twice"]),
        ({"no_cfg_until": 1}, ["guidance is off", "no_cfg_until = 1"]),
        ({"no_cfg_until": 2, "cfg": 2.0, "steps": 2}, ["No step", "no_cfg_until = 2, 2 steps"]),
        ({"from_data": 999}, ["fewer pictures", "999", "set sampling.from_data = "]),
        ({"at_start": False, "at_end": False}, ["No picture would ever be painted", "sampling.every = 250 of 4 steps"]),
    ],
)
def test_what_pictures_cannot_be(build_small: BuildRun, sampling: dict[str, Any], words: list[str]) -> None:
    with pytest.raises(ConfigError) as error:
        build_plan(build_small("run", sampling={"prompts": ["a dog"], **sampling}))
    for word in words:
        assert word in str(error.value), str(error.value)


def test_a_model_that_is_trained_itself_has_no_strengths(build_small: BuildRun) -> None:
    with pytest.raises(ConfigError, match="no adapter here"):
        build_plan(build_small("run", adapter=FULL, sampling={"prompts": ["a dog"], "strengths": [0.5]}))


def list_steps(folder: Path) -> list[int]:
    """The steps of which there are sheets."""
    return sorted(int(path.stem.removeprefix("step-")) for path in (folder / "pictures").glob("step-*.png"))


def test_strengths_paint_the_base_once(plain: Path, build_small: BuildRun) -> None:
    sampling = {"prompts": ["a dog"], "steps": 2, "every": 9, "strengths": [-1.0, 0.5, 1.0], "cfg": 2.0, "no_cfg_until": 1}
    folder = run(build_small("run", **SHORT, sampling=sampling))
    check_undisturbed(plain, folder)
    base, said = read(folder, 0), read(folder, 2)
    assert list(said) == ["00-strength-1", "00-strength0.5", "00-strength1"]
    assert [made["adapter"]["strength"] for _, made in said.values()] == [-1, 0.5, 1]
    assert all(np.array_equal(pixels, base["00-strength1"][0]) for pixels, _ in base.values())
    far, near = (np.abs(said[name][0].astype(int) - base[name][0]).mean() for name in ("00-strength1", "00-strength0.5"))
    assert far > near > 0
    [alone] = read(run(build_small("alone", **SHORT, sampling=sampling | {"strengths": [0.5]})), 2).values()
    assert np.array_equal(alone[0], said["00-strength0.5"][0])
    assert all(made["no_cfg_until"] == 1 and made["cfg"] == 2 for _, made in said.values())
    [whole] = read(run(build_small("whole", **SHORT, sampling=sampling | {"strengths": [0.5], "no_cfg_until": 0})), 2).values()
    assert not np.array_equal(whole[0], alone[0]) and "no_cfg_until" not in whole[1]


def test_pictures_after_those_of_the_sets(plain: Path, pictures: Path, tmp_path: Path, build_small: BuildRun) -> None:
    other = tmp_path / "other"
    other.mkdir()
    with Image.open(sorted(pictures.glob("*.png"))[3]) as picture:
        picture.resize((96, 64)).save(other / "wide.png")
    (other / "wide.txt").write_text("a red apple")
    sets = [{"resolution": 64}, {"path": str(other), "resolution": "96x64"}]
    config = build_small("run", **SHORT, data=sets, sampling={"from_data": 3, "steps": 1, "every": 1})
    plan = build_plan(config)
    first = [plan.dataset.examples[place] for place in (0, len(plan.dataset.examples) - 1, 1)]
    assert [one.text for one in plan.prompts] == [one.captions[0] for one in first] and first[1].captions == ("a red apple",)
    assert [one.learned for one in plan.prompts] == [one.target(0) for one in first]
    folder = run(config)
    said = read(folder, 2)
    assert {name: made["size"] for name, (_, made) in said.items()} == {"data-00": [64, 64], "data-01": [96, 64], "data-02": [64, 64]}
    with Image.open(folder / "pictures" / "step-000002.png") as sheet, Image.open(first[0].path) as learned:
        assert sheet.width == 5 * 12 + 4 * 192
        shown = np.asarray(sheet.crop((12, 32, 12 + 128, 32 + 128)).resize((64, 64))).astype(int)
        assert np.abs(shown - np.asarray(learned.convert("RGB").resize((64, 64)))).mean() < 12
    undisturbed = run(build_small("without", **SHORT, data=sets))
    check_undisturbed(undisturbed, folder)


@pytest.mark.parametrize(
    ("sampling", "steps"),
    [
        ({"every": 2}, [0, 2, 3]),
        ({"every": 2, "at_start": False}, [2, 3]),
        ({"every": 2, "at_end": False}, [0, 2]),
        ({"every": 3, "at_start": False}, [3]),
    ],
)
def test_when_pictures_are_painted(build_small: BuildRun, sampling: dict[str, Any], steps: list[int]) -> None:
    config = build_small("run", train={"steps": 3, "batch_size": 1}, sampling={"prompts": ["a dog"], "steps": 1, **sampling})
    folder = run(config)
    assert list_steps(folder) == steps
    assert (folder / "pictures" / "step-000000").is_dir() is (steps[0] == 0)
    assert f"{len(steps)} times 1 picture of" in build_report(build_plan(config))
