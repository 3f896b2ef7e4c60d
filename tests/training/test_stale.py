"""Nothing stale: exactly what changed is encoded again."""

from __future__ import annotations

import shutil
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from tests.runs import BuildRun, build_watcher
from weber.cache.store import Store
from weber.config.run import RunConfig
from weber.planning.plan import build_plan
from weber.training.assemble import Encoded, encode_cache

NUM_PICTURES = 12


@pytest.fixture
def cache(tmp_path: Path) -> Path:
    """Nothing is encoded before a test here."""
    return tmp_path / "cache"


@pytest.fixture
def own(tmp_path: Path, pictures: Path) -> Path:
    return Path(shutil.copytree(pictures, tmp_path / "own"))


def encode(config: RunConfig) -> Encoded:
    watcher, _ = build_watcher()
    return encode_cache(build_plan(config), Store(config.output.cache), watcher=watcher)


def test_each_change_encodes_exactly_what_it_touches(build_run: BuildRun, own: Path) -> None:
    def data(**changes: object) -> RunConfig:
        return build_run(data=[{"path": str(own), "aspect": "square", **changes}])

    captions = {line for file in own.glob("*.txt") for line in file.read_text().splitlines() if line.strip()}
    assert encode(data()) == Encoded(NUM_PICTURES, 2 * len(captions))
    assert encode(data()) == Encoded(0, 0)

    sorted(own.glob("*.txt"))[0].write_text("an entirely new caption\n")
    assert encode(data()) == Encoded(0, 2)

    picture = sorted(own.glob("*.png"))[0]
    Image.fromarray(255 - np.asarray(Image.open(picture).convert("RGB"))).save(picture)
    assert encode(data()) == Encoded(1, 0)

    assert encode(data(resolution=48)) == Encoded(NUM_PICTURES, 0)
    assert encode(data(crop="random", num_crops=2)) == Encoded(0, 0)  # a square picture has one square window
    assert encode(data()) == Encoded(0, 0)

    sorted(own.glob("*.png"))[1].rename(own / "renamed.png")
    sorted(own.glob("*.txt"))[1].rename(own / "renamed.txt")
    assert encode(data()) == Encoded(0, 0)


def test_a_changed_crop_encodes_only_what_is_cropped(build_run: BuildRun, own: Path) -> None:
    wide = sorted(own.glob("*.png"))[0]
    Image.open(wide).convert("RGB").resize((128, 64)).save(wide)
    config = build_run(data=[{"path": str(own), "aspect": "square"}])
    corner = build_run(data=[{"path": str(own), "aspect": "square", "crop": "corner"}])
    assert encode(config).latents == NUM_PICTURES
    assert encode(corner) == Encoded(1, 0)  # the square pictures have the same window wherever it is put


def test_only_new_and_changed_files_are_opened(build_run: BuildRun, own: Path) -> None:
    config = build_run(data=[{"path": str(own)}])
    assert build_plan(config).dataset.num_opened == NUM_PICTURES
    assert build_plan(config).dataset.num_opened == 0
    picture = sorted(own.glob("*.png"))[0]
    Image.open(picture).convert("RGB").rotate(90).save(picture)
    assert build_plan(config).dataset.num_opened == 1
