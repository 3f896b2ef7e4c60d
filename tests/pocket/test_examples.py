"""The pictures and run files that ship in `examples/`."""

from __future__ import annotations

import tomllib
from pathlib import Path

import pytest
from PIL import Image, ImageChops

from examples import build_zorb
from weber.config.run import RunConfig
from weber.families.table import FAMILIES
from weber.training.demo import SUBJECTS

EXAMPLES = Path(__file__).parents[2] / "examples"
PICTURES = sorted((EXAMPLES / "fluent").glob("*.png"))


def test_there_are_32_pictures_and_their_license() -> None:
    assert len(PICTURES) == 32
    assert sum(file.stat().st_size for file in (EXAMPLES / "fluent").iterdir()) < 3_000_000
    assert "Copyright (c) Microsoft Corporation." in (EXAMPLES / "fluent" / "LICENSE").read_text(encoding="utf-8")


@pytest.mark.parametrize("path", PICTURES, ids=lambda path: path.stem)
def test_a_picture_has_its_size_and_captions(path: Path) -> None:
    with Image.open(path) as picture:
        picture.load()
        assert (picture.size, picture.mode) == ((256, 256), "RGB")
        assert picture.getextrema() != ((255, 255),) * 3
    captions = path.with_suffix(".txt").read_text(encoding="utf-8").splitlines()
    assert captions[0] == f"{path.stem.replace('_', ' ')}, 3d fluent style"
    assert all(caption.endswith(", 3d fluent style") for caption in captions)


def test_the_demo_paints_nothing_that_it_was_shown() -> None:
    shown = " ".join(file.read_text(encoding="utf-8") for file in (EXAMPLES / "fluent").glob("*.txt"))
    assert not [subject for subject in SUBJECTS if subject in shown]


def test_there_are_12_zorbs_with_captions_and_the_script_draws_them() -> None:
    for number, pose in enumerate(build_zorb.POSES, start=1):
        with Image.open(EXAMPLES / "zorb" / f"zorb-{number:02d}.png") as picture:
            assert ImageChops.difference(picture, build_zorb.draw_zorb(pose)).getextrema() == ((0, 0),) * 3
        caption = (EXAMPLES / "zorb" / f"zorb-{number:02d}.txt").read_text(encoding="utf-8")
        assert caption.startswith("a photo of zorb") and (pose.background in caption or pose.background == "white")
    assert number == 12


@pytest.mark.parametrize("name", ["fluent.toml", "quickstart.toml", "zorb.toml"])
def test_a_run_file_is_a_valid_config(name: str) -> None:
    config = RunConfig.model_validate(tomllib.loads((EXAMPLES / name).read_text(encoding="utf-8")))
    assert len(config.data) == 1


def test_the_run_over_the_examples_points_at_them() -> None:
    config = RunConfig.model_validate(tomllib.loads((EXAMPLES / "fluent.toml").read_text(encoding="utf-8")))
    assert (EXAMPLES.parent / config.data[0].path).samefile(EXAMPLES / "fluent")


def test_the_quickstart_says_which_model_it_trains() -> None:
    text = (EXAMPLES / "quickstart.toml").read_text(encoding="utf-8")
    config = RunConfig.model_validate(tomllib.loads(text))
    assert config.model.variant is None and config.model.path is None
    _, summary = next(iter(FAMILIES[0].variants.values()))
    assert f"a LoRA for {summary.partition(',')[0]} at 1024 px" in text
