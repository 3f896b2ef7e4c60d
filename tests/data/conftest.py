"""Real picture files and sets of them."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from tests.data.dataset_hub import serve_hub  # noqa: F401
from weber.config.data import DataConfig
from weber.data.build import build_dataset
from weber.data.dataset import Dataset
from weber.data.sets import PictureLimits
from weber.progress import Progress, ignore_progress

PLAIN = PictureLimits()


@pytest.fixture
def write_picture() -> Callable[..., Path]:
    """Write a picture of noise that no other seed makes, with its caption file unless `caption` is None."""

    def write(path: Path, width: int = 64, height: int = 64, *, seed: int = 0, caption: str | None = "a picture") -> Path:
        path.parent.mkdir(parents=True, exist_ok=True)
        pixels = np.random.default_rng(seed).integers(0, 256, (height, width, 3), dtype=np.uint8)
        Image.fromarray(pixels).save(path)
        if caption is not None:
            path.with_suffix(".txt").write_text(caption, encoding="utf-8")
        return path

    return write


@pytest.fixture
def read_sets(tmp_path: Path) -> Callable[..., Dataset]:
    """`build_dataset` with an index and unpacked datasets in the test's own folder."""

    def read(*sets: DataConfig, seed: int = 1, inputs: PictureLimits = PLAIN, progress: Progress = ignore_progress) -> Dataset:
        return build_dataset(
            sets,
            alignment_pixels=16,
            inputs=inputs,
            index_path=tmp_path / "cache" / "index.sqlite",
            hub_folder=tmp_path / "cache" / "hub",
            seed=seed,
            progress=progress,
        )

    return read
