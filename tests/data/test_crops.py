"""Crops: windows inside the resized picture, of the bucket's size."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from weber.config.data import CropStyle
from weber.data.buckets import Bucket
from weber.data.crops import Crop, build_crops, build_reference_crop, check_shape
from weber.errors import DataError

SIDES = st.integers(1, 5000)
BUCKETS = st.builds(Bucket, st.integers(1, 128).map(lambda n: 16 * n), st.integers(1, 128).map(lambda n: 16 * n))
STYLES: list[CropStyle] = ["off", "center", "random", "corner"]


@given(SIDES, SIDES, BUCKETS, st.sampled_from(STYLES), st.integers(1, 8), st.integers())
def test_windows_lie_inside(width: int, height: int, bucket: Bucket, style: CropStyle, num_crops: int, seed: int) -> None:
    crops = build_crops(width, height, bucket=bucket, style=style, num_crops=num_crops, seed_parts=(seed,))
    assert 1 <= len(crops) <= (num_crops if style == "random" else 1)
    assert len(set(crops)) == len(crops)
    for crop in crops:
        assert (crop.width, crop.height) == (bucket.width, bucket.height)
        assert 0 <= crop.left <= crop.resize_width - crop.width
        assert 0 <= crop.top <= crop.resize_height - crop.height


@given(SIDES, SIDES, BUCKETS)
def test_resize_covers_tightly_and_keeps_the_aspect(width: int, height: int, bucket: Bucket) -> None:
    (crop,) = build_crops(width, height, bucket=bucket, style="center", num_crops=1, seed_parts=())
    assert crop.resize_width == bucket.width or crop.resize_height == bucket.height
    scale = max(bucket.width / width, bucket.height / height)
    assert abs(crop.resize_width - width * scale) <= 0.5 + 1e-6
    assert abs(crop.resize_height - height * scale) <= 0.5 + 1e-6


@pytest.mark.parametrize(
    ("size", "bucket", "style", "crop"),
    [
        ((400, 300), (200, 200), "off", (200, 200, 0, 0)),
        ((400, 300), (200, 200), "center", (267, 200, 33, 0)),
        ((400, 300), (200, 200), "corner", (267, 200, 0, 0)),
        ((300, 400), (200, 200), "center", (200, 267, 0, 33)),
        ((64, 64), (64, 64), "center", (64, 64, 0, 0)),
        ((64, 50), (32, 16), "center", (32, 25, 0, 4)),
        ((4, 5), (2, 2), "center", (2, 3, 0, 0)),  # 2.5 is rounded up
        ((5, 5), (4, 2), "center", (4, 4, 0, 1)),
    ],
)
def test_known_crops(size: tuple[int, int], bucket: tuple[int, int], style: CropStyle, crop: tuple[int, int, int, int]) -> None:
    assert build_crops(*size, bucket=Bucket(*bucket), style=style, num_crops=1, seed_parts=()) == (Crop(*crop, *bucket),)


def test_random_windows_come_from_their_seeds_alone() -> None:
    def draw(*parts: int | str) -> tuple[Crop, ...]:
        return build_crops(4000, 1000, bucket=Bucket(512, 512), style="random", num_crops=6, seed_parts=parts)

    assert draw(1, "content") == draw(1, "content")
    assert draw(1, "content") != draw(2, "content") != draw(2, "other")
    assert len(draw(1, "content")) == 6
    more = build_crops(4000, 1000, bucket=Bucket(512, 512), style="random", num_crops=9, seed_parts=(1, "content"))
    assert more[:6] == draw(1, "content")


def test_random_windows_without_room_are_one() -> None:
    assert len(build_crops(512, 512, bucket=Bucket(256, 256), style="random", num_crops=4, seed_parts=(1,))) == 1


def test_description_is_pinned() -> None:
    """It is part of cache keys: a change here encodes every picture again."""
    assert Crop(267, 200, 33, 0, 200, 200).describe() == "pixels 1 lanczos 267x200 window 200x200+33+0"


@given(st.tuples(*[st.integers(0, 99)] * 6), st.tuples(*[st.integers(0, 99)] * 6))
def test_different_crops_differ_in_words(first: tuple[int, ...], second: tuple[int, ...]) -> None:
    assert (Crop(*first).describe() == Crop(*second).describe()) == (first == second)


# --- references


@given(SIDES, SIDES, st.integers(1, 4000), BUCKETS, st.sampled_from(STYLES), st.integers())
def test_a_reference_of_the_pictures_shape_is_cut_as_the_picture_is(
    width: int, height: int, percent: int, bucket: Bucket, style: CropStyle, seed: int
) -> None:
    reference = max(1, width * percent // 1000), max(1, height * percent // 1000)
    for crop in build_crops(width, height, bucket=bucket, style=style, num_crops=3, seed_parts=(seed,)):
        assert build_reference_crop(*reference, crop=crop, picture=(width, height)) == crop


@given(SIDES, SIDES, SIDES, SIDES, BUCKETS, st.sampled_from(STYLES), st.integers())
def test_a_reference_of_another_shape_fills_the_same_window(
    width: int, height: int, other_width: int, other_height: int, bucket: Bucket, style: CropStyle, seed: int
) -> None:
    for crop in build_crops(width, height, bucket=bucket, style=style, num_crops=3, seed_parts=(seed,)):
        own = build_reference_crop(other_width, other_height, crop=crop, picture=(width, height))
        assert (own.width, own.height) == (crop.width, crop.height)
        assert 0 <= own.left <= own.resize_width - own.width
        assert 0 <= own.top <= own.resize_height - own.height
        if own == crop:
            continue
        # resized in its own shape, no larger than needed to cover what the picture was resized to ...
        scale = max(crop.resize_width / other_width, crop.resize_height / other_height)
        assert abs(own.resize_width - other_width * scale) <= 0.5 + 1e-6
        assert abs(own.resize_height - other_height * scale) <= 0.5 + 1e-6
        # ... and cut where the picture is, measured from the middle
        assert abs((own.left - own.resize_width / 2) - (crop.left - crop.resize_width / 2)) <= 0.5
        assert abs((own.top - own.resize_height / 2) - (crop.top - crop.resize_height / 2)) <= 0.5


@pytest.mark.parametrize(
    ("reference", "crop"),
    [
        ((400, 300), (267, 200, 33, 0)),
        ((800, 600), (267, 200, 33, 0)),
        ((100, 75), (267, 200, 33, 0)),
        ((300, 300), (267, 267, 33, 33)),
        ((800, 300), (533, 200, 166, 0)),
    ],
)
def test_known_references(reference: tuple[int, int], crop: tuple[int, int, int, int]) -> None:
    (of_picture,) = build_crops(400, 300, bucket=Bucket(200, 200), style="center", num_crops=1, seed_parts=())
    assert build_reference_crop(*reference, crop=of_picture, picture=(400, 300)) == Crop(*crop, 200, 200)


@given(SIDES, SIDES, st.integers(1, 4000))
def test_a_shape_in_another_resolution_is_the_same(width: int, height: int, percent: int) -> None:
    check_shape((max(1, width * percent // 1000), max(1, height * percent // 1000)), picture=(width, height))


@pytest.mark.parametrize("size", [(300, 400), (403, 300), (64, 64), (800, 594), (8, 8)])
def test_another_shape_is_refused(size: tuple[int, int]) -> None:
    with pytest.raises(DataError, match=f"^another shape: {size[0]} x {size[1]} pixels, its picture 400 x 300$"):
        check_shape(size, picture=(400, 300))
