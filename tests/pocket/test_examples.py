"""The pictures and run files that ship in `examples/`."""

from __future__ import annotations

import tomllib
from pathlib import Path

import pytest
from PIL import Image

from weber.config.run import RunConfig

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


@pytest.mark.parametrize("name", ["fluent.toml", "quickstart.toml"])
def test_a_run_file_is_a_valid_config(name: str) -> None:
    config = RunConfig.model_validate(tomllib.loads((EXAMPLES / name).read_text(encoding="utf-8")))
    assert len(config.data) == 1


def test_the_run_over_the_examples_points_at_them() -> None:
    config = RunConfig.model_validate(tomllib.loads((EXAMPLES / "fluent.toml").read_text(encoding="utf-8")))
    assert (EXAMPLES.parent / config.data[0].path).samefile(EXAMPLES / "fluent")
