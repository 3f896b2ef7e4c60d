"""Buckets: the list, the choice, and pictures that may not be enlarged."""

from __future__ import annotations

import math
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from weber.config.data import DataConfig
from weber.data.buckets import Bucket, build_bucket, check_size, list_buckets
from weber.errors import DataError

EDGES = st.integers(256, 2048)
STEPS = st.sampled_from([16, 32, 64])
SIDES = st.integers(1, 6000)


def _config(**keys: Any) -> DataConfig:
    return DataConfig(path=Path("pictures"), **keys)


def _list_like_kohya(max_area: int, *, min_side: int, max_side: int, step: int) -> list[tuple[int, int]]:
    """The rule as `peers.md` 1.8 tells it."""
    square = int(math.sqrt(max_area) // step) * step
    sizes = {(square, square)}
    for width in range(min_side, max_side + 1, step):
        height = min(max_side, max_area // width // step * step)
        if height >= min_side:
            sizes |= {(width, height), (height, width)}
    return sorted(sizes)


@pytest.mark.parametrize(("edge", "step"), [(512, 64), (1024, 64), (1024, 16), (768, 32), (2048, 64)])
def test_list_equals_kohyas_with_our_sides(edge: int, step: int) -> None:
    expected = _list_like_kohya(edge * edge, min_side=edge // 2, max_side=2 * edge, step=step)
    assert [(bucket.width, bucket.height) for bucket in list_buckets(edge * edge, step=step)] == expected


def test_list_of_512_is_known() -> None:
    sides = [(bucket.width, bucket.height) for bucket in list_buckets(512 * 512, step=64)]
    landscape = [(512, 512), (576, 448), (640, 384), (704, 320), (768, 320), (832, 256), (896, 256), (960, 256), (1024, 256)]
    assert sides == sorted({*landscape, *((height, width) for width, height in landscape)})


@given(EDGES, STEPS)
def test_buckets_of_a_list(edge: int, step: int) -> None:
    buckets = list_buckets(edge * edge, step=step)
    assert buckets == sorted(set(buckets))
    for bucket in buckets:
        assert bucket.width % step == 0 and bucket.height % step == 0
        assert bucket.width * bucket.height <= edge * edge
        assert Bucket(bucket.height, bucket.width) in buckets


@pytest.mark.parametrize("area", [1, 15 * 15, 16 * 16 - 1])
def test_no_bucket_below_one_step(area: int) -> None:
    assert list_buckets(area, step=16) == []


@given(EDGES, STEPS, st.floats(-math.log(4), math.log(4)), st.integers(200, 3000))
def test_aspect_error_is_bounded(edge: int, step: int, log_aspect: float, height: int) -> None:
    width = max(1, round(height * math.exp(log_aspect)))
    bucket = build_bucket(width, height, config=_config(resolution=edge, bucket_step=step, upscale=True))
    error = abs(math.log(bucket.width / bucket.height) - math.log(width / height))
    assert error <= 1.6 * step / edge


@given(SIDES, SIDES, EDGES, STEPS)
def test_choice_is_exact_or_nearest(width: int, height: int, edge: int, step: int) -> None:
    buckets = list_buckets(edge * edge, step=step)
    bucket = build_bucket(width, height, config=_config(resolution=edge, bucket_step=step, upscale=True))
    assert bucket in buckets
    if Bucket(width, height) in buckets:
        assert bucket == Bucket(width, height)
    else:
        errors = [abs(each.width / each.height - width / height) for each in buckets]
        assert abs(bucket.width / bucket.height - width / height) == min(errors)


@given(SIDES, SIDES, EDGES, STEPS, st.sampled_from(["area", "shorter_edge"]), st.sampled_from(["bucket", "square"]))
def test_nothing_is_enlarged_unasked(width: int, height: int, edge: int, step: int, kind: str, aspect: str) -> None:
    config = _config(resolution=edge, bucket_step=step, resolution_type=kind, aspect=aspect)
    if min(width, height) < step:
        with pytest.raises(DataError, match=f"^too small: {width} x {height} pixels, bucket_step is {step}"):
            build_bucket(width, height, config=config)
        return
    try:
        bucket = build_bucket(width, height, config=config)
    except DataError:  # so long that its height is below one step at the set's area
        assert kind == "area" and edge * edge * min(width, height) < step * step * max(width, height)
        return
    assert bucket.width <= width and bucket.height <= height
    assert bucket.width % step == 0 and bucket.height % step == 0
    assert kind == "shorter_edge" or bucket.width * bucket.height <= edge * edge
    assert aspect == "bucket" or bucket.width == bucket.height


@pytest.mark.parametrize(
    ("size", "keys", "bucket"),
    [
        ((4000, 3000), {}, (1152, 896)),
        ((3000, 4000), {}, (896, 1152)),
        ((1024, 1024), {}, (1024, 1024)),
        ((4000, 3000), {"resolution": 1, "resolution_type": "megapixels"}, (1152, 896)),
        ((4000, 3000), {"resolution": 0.25, "resolution_type": "megapixels"}, (576, 448)),
        ((4000, 3000), {"resolution": 512, "resolution_type": "shorter_edge"}, (704, 512)),
        ((3000, 4000), {"resolution": 512, "resolution_type": "shorter_edge"}, (512, 704)),
        ((3000, 3000), {"resolution": 512, "resolution_type": "shorter_edge"}, (512, 512)),
        ((4000, 3000), {"aspect": "square"}, (1024, 1024)),
        ((4000, 3000), {"aspect": "square", "resolution": 1000}, (960, 960)),
        # smaller than their bucket: their own size in whole steps, or enlarged if asked
        ((1000, 800), {}, (960, 768)),
        ((1000, 800), {"upscale": True}, (1152, 896)),
        ((800, 600), {"aspect": "square"}, (576, 576)),
        ((800, 600), {"aspect": "square", "upscale": True}, (1024, 1024)),
        ((700, 500), {"resolution": 512, "resolution_type": "shorter_edge"}, (640, 448)),
        ((700, 500), {"resolution": 512, "resolution_type": "shorter_edge", "upscale": True}, (704, 512)),
        # large but too flat for any bucket: scaled down to the area
        ((4000, 500), {}, (2880, 320)),
    ],
)
def test_choices(size: tuple[int, int], keys: dict[str, Any], bucket: tuple[int, int]) -> None:
    assert build_bucket(*size, config=_config(**keys)) == Bucket(*bucket)


@pytest.mark.parametrize(
    ("size", "keys", "reason"),
    [
        ((255, 4000), {}, "too small: 255 x 4000 pixels, minimum_edge is 256"),
        ((4000, 99), {"minimum_edge": 100}, "too small: 4000 x 99 pixels, minimum_edge is 100"),
        ((4001, 1000), {}, "too long: 4001 x 1000 pixels, max_aspect is 4"),
        ((500, 1000), {"max_aspect": 1.5}, "too long: 500 x 1000 pixels, max_aspect is 1.5"),
    ],
)
def test_sizes_that_a_set_does_not_take(size: tuple[int, int], keys: dict[str, Any], reason: str) -> None:
    with pytest.raises(DataError) as error:
        check_size(*size, config=_config(**keys))
    assert error.value.what == reason


def test_sizes_that_a_set_takes() -> None:
    check_size(256, 1024, config=_config())
    check_size(4000, 1000, config=_config())
    check_size(4000, 300, config=_config(aspect="square"))
    check_size(1, 1, config=_config(minimum_edge=1))


# --- listed


SIZES = [(672, 1568), (1568, 672), (832, 1248), (1248, 832), (1024, 1024)]


@pytest.mark.parametrize(
    ("size", "bucket"),
    [
        ((2048, 2048), (1024, 1024)),
        ((2000, 1900), (1024, 1024)),
        ((3000, 2000), (1248, 832)),
        ((2000, 3000), (832, 1248)),
        ((8000, 2000), (1568, 672)),
        ((2048, 3072), (832, 1248)),
    ],
)
def test_listed_sizes_are_chosen_by_aspect(size: tuple[int, int], bucket: tuple[int, int]) -> None:
    assert build_bucket(*size, config=_config(aspect="listed"), sizes=SIZES) == Bucket(*bucket)


@given(st.integers(700, 4000), st.integers(700, 4000))
def test_a_listed_size_is_that_of_the_models_own_pipeline(width: int, height: int) -> None:
    _, expected_width, expected_height = min((abs(width / height - w / h), w, h) for w, h in SIZES)
    bucket = build_bucket(width, height, config=_config(aspect="listed", upscale=True), sizes=SIZES)
    assert bucket == Bucket(expected_width, expected_height)


def test_a_picture_smaller_than_its_listed_size_keeps_its_own() -> None:
    assert build_bucket(900, 1000, config=_config(aspect="listed"), sizes=SIZES) == Bucket(896, 960)
    assert build_bucket(900, 1000, config=_config(aspect="listed", upscale=True), sizes=SIZES) == Bucket(1024, 1024)


def test_long_pictures_are_refused_for_listed_sizes_too() -> None:
    with pytest.raises(DataError, match="^too long: 900 x 400 pixels, max_aspect is 2$"):
        check_size(900, 400, config=_config(aspect="listed", max_aspect=2))


# --- a list of one's own


OWN = [[512, 512], [1024, 1024], [256, 512], [512, 256]]


@pytest.mark.parametrize(
    ("size", "bucket"),
    [
        ((2000, 2000), (1024, 1024)),  # the largest of the nearest aspect
        ((1000, 1100), (512, 512)),  # that needs no enlarging
        ((2000, 1400), (1024, 1024)),
        ((2000, 1100), (512, 256)),
        ((300, 700), (256, 512)),
    ],
)
def test_ones_own_sizes_are_taken_instead_of_the_models(size: tuple[int, int], bucket: tuple[int, int]) -> None:
    for config in (_config(buckets=OWN), _config(buckets=OWN, aspect="listed", upscale=True)):
        assert build_bucket(*size, config=config, sizes=SIZES) == Bucket(*bucket)


def test_a_picture_smaller_than_all_of_its_aspect() -> None:
    assert build_bucket(400, 410, config=_config(buckets=OWN, upscale=True)) == Bucket(512, 512)
    assert build_bucket(400, 410, config=_config(buckets=OWN)) == Bucket(384, 384)


@given(st.integers(300, 4000), st.integers(300, 4000))
def test_no_other_size_of_ones_own_is_nearer(width: int, height: int) -> None:
    chosen = build_bucket(width, height, config=_config(buckets=OWN, upscale=True))
    assert [chosen.width, chosen.height] in OWN
    assert all(abs(width / height - chosen.width / chosen.height) <= abs(width / height - w / h) for w, h in OWN)


def test_a_quarter_of_the_largest_of_ones_own_is_the_shortest_edge() -> None:
    check_size(256, 256, config=_config(buckets=OWN))
    with pytest.raises(DataError, match="too small: 255 x 300 pixels, minimum_edge is 256"):
        check_size(255, 300, config=_config(buckets=OWN))
