"""What the sections compute and promise by themselves."""

from __future__ import annotations

from pathlib import Path

import pytest
from pydantic import ValidationError

from weber.config.data import DataConfig, ResolutionType
from weber.config.model import ModelConfig
from weber.config.output import SamplingConfig
from weber.config.run import RunConfig


@pytest.mark.parametrize(
    ("resolution", "unit", "area", "edge"),
    [
        (512, "area", 512 * 512, 512),
        (1, "megapixels", 1024 * 1024, 1024),
        (0.25, "megapixels", 512 * 512, 512),
        (640, "shorter_edge", 640 * 640, 640),
    ],
)
def test_a_resolution_means_an_area_and_an_edge(resolution: float, unit: ResolutionType, area: int, edge: int) -> None:
    data = DataConfig(path=Path("a"), resolution=resolution, resolution_type=unit)
    assert (data.area_pixels, data.edge_pixels) == (area, edge)


def test_the_defaults_are_those_of_the_reference() -> None:
    config = RunConfig(data=[DataConfig(path=Path("a"))])
    assert (config.adapter.rank, config.adapter.alpha, config.optim.choose_lr("lora"), config.train.batch_size) == (16, None, 1e-4, 1)
    assert (config.optim.norm_limit, config.objective.timesteps, config.memory.dtype) == (1.0, None, "auto")
    assert (config.data[0].area_pixels, config.data[0].step_pixels) == (1024 * 1024, 64)


def test_a_config_cannot_be_changed() -> None:
    with pytest.raises(ValidationError):
        ModelConfig().path = "other"  # type: ignore[misc]


def test_a_default_without_effect_is_never_refused() -> None:
    assert SamplingConfig(every=250, steps=None).every == 250
    assert DataConfig(path=Path("a"), aspect="square", max_aspect=4.0).aspect == "square"


def test_megapixels_need_a_number() -> None:
    with pytest.raises(ValueError, match='"megapixels" needs resolution'):
        DataConfig(path=Path("a"), resolution_type="megapixels")


def test_what_is_left_out_is_filled_in_and_what_is_set_is_kept() -> None:
    left = DataConfig(path=Path("a"))
    given = DataConfig(path=Path("a"), resolution=512, bucket_step=32, aspect="bucket", captions="textfile")
    for native, expected in ((1024, (1024, 64)), (64, (64, 16))):
        fitting = left.build_fitting(native_pixels=native, alignment_pixels=16)
        assert (fitting.resolution, fitting.bucket_step) == expected
        assert given.build_fitting(native_pixels=native, alignment_pixels=16) == given
