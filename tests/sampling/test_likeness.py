"""Noise and likeness of pictures, on pictures of which both are known."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from weber.sampling.likeness import measure_likeness, measure_noise


def _save(path: Path, pixels: np.ndarray) -> Path:
    Image.fromarray(pixels.round().clip(0, 255).astype(np.uint8)).save(path)
    return path


@pytest.fixture
def files(tmp_path: Path) -> dict[str, Path]:
    generator = np.random.default_rng(0)
    cells = Image.fromarray(generator.integers(0, 256, (32, 32, 3), dtype=np.uint8)).resize((256, 256), Image.Resampling.BICUBIC)
    ramp = np.broadcast_to(np.linspace(0, 255, 256)[:, None, None], (256, 256, 3))
    return {
        "white": _save(tmp_path / "white.png", generator.uniform(0, 255, (256, 256, 3))),
        "latent": _save(tmp_path / "latent.png", np.asarray(cells, float)),
        "ramp": _save(tmp_path / "ramp.png", ramp),
        "fall": _save(tmp_path / "fall.png", 255 - ramp),
        "flat": _save(tmp_path / "flat.png", np.full((256, 256, 3), 90.0)),
        "other": _save(tmp_path / "other.png", np.full((256, 256, 3), 20.0)),
    }


def test_noise_of_a_decoder_is_noise_and_a_picture_is_not(files: dict[str, Path]) -> None:
    assert measure_noise([files["white"]]) == pytest.approx(1.0, abs=0.05)
    assert measure_noise([files["latent"]]) > 0.5 and measure_noise([files["ramp"]]) < 0.05 and measure_noise([files["flat"]]) == 0
    both = measure_noise([files["white"], files["ramp"]])
    assert both == pytest.approx((measure_noise([files["white"]]) + measure_noise([files["ramp"]])) / 2)


def test_likeness_is_that_of_all_pairs(files: dict[str, Path], tmp_path: Path) -> None:
    assert measure_likeness([files["ramp"], files["ramp"]]) == pytest.approx(1.0)
    assert measure_likeness([files["ramp"], files["fall"]]) == pytest.approx(-1.0, abs=0.01)
    assert abs(measure_likeness([files["ramp"], files["white"]])) < 0.3
    assert measure_likeness([files["ramp"], files["ramp"], files["fall"]]) == pytest.approx(-1 / 3, abs=0.01)
    assert measure_likeness([files["flat"], files["flat"]]) == 1 and measure_likeness([files["flat"], files["other"]]) == 0
