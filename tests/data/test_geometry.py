"""Sizes and windows as other trainers have them, by every row that was measured there; and what holds for any geometry."""

from __future__ import annotations

import gzip
import json
from collections.abc import Iterator
from math import sqrt
from pathlib import Path
from typing import Any

import pytest
from hypothesis import assume, given
from hypothesis import strategies as st

from weber.config.data import DataConfig
from weber.data.buckets import Bucket
from weber.data.crops import cut_crops
from weber.data.geometry import choose_aspect, place_picture
from weber.data.geometry_simpletuner import place_as_simpletuner
from weber.errors import DataError

FOLDER = Path(__file__).parent / "golden"
GOLDEN = json.loads(gzip.decompress((FOLDER / "simpletuner.json.gz").read_bytes()))
TYPES = {"pixel_area": "area", "area": "megapixels", "pixel": "shorter_edge"}
SIDES = st.integers(16, 5000)


def _translate(golden: dict[str, Any], alignment: int) -> DataConfig:
    """The options of a set that was measured, as weber has them; there everything is enlarged."""
    closest = golden.get("crop_aspect") == "closest"
    return DataConfig(
        path=Path("a"),
        geometry="simpletuner",
        upscale=True,
        bucket_step=alignment,
        resolution=float(golden["resolution"]),
        resolution_type=TYPES[golden["resolution_type"]],
        aspect={"square": "square", "closest": "closest"}.get(golden.get("crop_aspect"), "bucket"),
        aspects=golden.get("crop_aspect_buckets", []) if closest else [],
        crop=golden.get("crop_style", "center"),
        downsample_to=golden.get("target_downsample_size"),
    )


def _list_neighbors(config: DataConfig, size: tuple[int, int]) -> Iterator[tuple[int, int]]:
    """Targets of aspects a little beside the picture's."""
    for hundredths in range(-3, 4):
        aspect = round(size[0] / size[1] + hundredths / 100, 2)
        if aspect > 0:
            bucket = place_as_simpletuner(*size, config=config, aspect=aspect).bucket
            yield bucket.width, bucket.height


@pytest.mark.parametrize("golden", GOLDEN["sets"], ids=lambda one: f"{one['alignment']} {' '.join(map(str, one['config'].values()))}")
def test_every_size_that_was_measured(golden: dict[str, Any]) -> None:
    config, num_kept = _translate(golden["config"], golden["alignment"]), 0
    is_drawn = not golden["config"]["crop"]
    for width, height, *numbers in golden["rows"]:
        target_width, target_height, resized_width, resized_height, rounded, top, left = numbers
        aspect = choose_aspect(width, height, config=config, seed_parts=())
        placed = place_picture(width, height, config=config, aspect=aspect)
        if (placed.bucket.width, placed.bucket.height) != (target_width, target_height):
            # an earlier picture of the same rounded aspect has decided the target there
            assert (target_width, target_height) in set(_list_neighbors(config, (width, height)))
            assert round(placed.bucket.width / placed.bucket.height, 2) == rounded
            num_kept += 1
            continue
        if resized_width < target_width or resized_height < target_height:
            # there the window reaches beyond the picture: here the picture covers it
            assert placed.resize_width >= target_width and placed.resize_height >= target_height
            continue
        if config.downsample_to is None:
            assert (placed.resize_width, placed.resize_height) == (resized_width, resized_height)
        (crop,) = cut_crops(placed, style=config.crop, num_crops=1, seed_parts=())
        assert (crop.width, crop.height) == (target_width, target_height)
        if not is_drawn and (crop.top, crop.left) != (top, left):
            # and that of the size before the cut, by a step of the model's
            assert config.downsample_to is not None and max(abs(crop.top - top), abs(crop.left - left)) <= 8
            num_kept += 1
    assert num_kept <= 5


def test_the_exceptions_are_few() -> None:
    """Of 10,800 rows: windows beyond the picture, and targets that an earlier picture has decided."""
    beyond, decided = 0, 0
    for golden in GOLDEN["sets"]:
        config = _translate(golden["config"], golden["alignment"])
        for width, height, *numbers in golden["rows"]:
            beyond += numbers[2] < numbers[0] or numbers[3] < numbers[1]
            aspect = choose_aspect(width, height, config=config, seed_parts=())
            bucket = place_picture(width, height, config=config, aspect=aspect).bucket
            decided += (bucket.width, bucket.height) != (numbers[0], numbers[1])
    assert sum(len(golden["rows"]) for golden in GOLDEN["sets"]) == 10800
    assert (beyond, decided) == (327, 62)


# --- kohya


def _list_resolutions(area: int, *, step: int, least: int, most: int) -> list[tuple[int, int]]:
    """peers.md 1.8, in its words: all widths between the sides, the height that the area leaves, both ways, and the square."""
    edge = int(sqrt(area)) // step * step
    found = {(edge, edge)}
    for width in range(least, most + 1, step):
        height = min(most, area // width // step * step)
        if height >= least:
            found |= {(width, height), (height, width)}
    return sorted(found)


def _kohya(**keys: Any) -> DataConfig:
    return DataConfig(path=Path("a"), geometry="kohya", **{"resolution": 1024.0, "bucket_step": 64, "upscale": True, **keys})


@given(SIDES, SIDES, st.sampled_from([(1024, 256, 1024), (512, 256, 1024), (768, 320, 1536), (1024, 256, 2048)]))
def test_buckets_of_kohya(width: int, height: int, sizes: tuple[int, int, int]) -> None:
    edge, least, most = sizes
    placed = place_picture(width, height, config=_kohya(resolution=float(edge), shortest_side=least, longest_side=most))
    known = _list_resolutions(edge * edge, step=64, least=least, most=most)
    nearest = min(known, key=lambda one: abs(one[0] / one[1] - width / height))
    chosen = (width, height) if (width, height) in known else nearest
    assert (placed.bucket.width, placed.bucket.height) == chosen
    scale = chosen[1] / height if width / height > chosen[0] / chosen[1] else chosen[0] / width
    assert abs(placed.resize_width - width * scale) <= 0.5 + 1e-6 and abs(placed.resize_height - height * scale) <= 0.5 + 1e-6


@pytest.mark.parametrize(
    ("size", "bucket", "resized"),
    [
        ((1024, 1024), (1024, 1024), (1024, 1024)),
        ((1080, 1920), (768, 1344), (768, 1365)),
        ((1920, 1080), (1344, 768), (1365, 768)),
        ((700, 500), (640, 448), (700, 500)),  # small enough: its own size, cut
        ((1000, 1049), (960, 1024), (976, 1024)),
        ((3000, 4000), (832, 1088), (832, 1109)),
    ],
)
def test_without_enlarging_as_kohya(size: tuple[int, int], bucket: tuple[int, int], resized: tuple[int, int]) -> None:
    """Worked out by hand from the rule of peers.md 1.8."""
    placed = place_picture(*size, config=_kohya(upscale=False))
    assert (placed.bucket.width, placed.bucket.height) == bucket
    assert (placed.resize_width, placed.resize_height) == resized


def test_the_sides_of_kohya_when_nothing_is_said() -> None:
    assert place_picture(400, 4000, config=_kohya()).bucket == Bucket(256, 1024)


# --- ai-toolkit and OneTrainer

SOURCES = {name: json.loads(gzip.decompress((FOLDER / f"{name}.json.gz").read_bytes())) for name in ("ai-toolkit", "onetrainer")}
"""Rows that those programs' own code has made: size, size before the cut, window."""


@pytest.mark.parametrize(
    ("name", "golden"),
    [(name, golden) for name, source in SOURCES.items() for golden in source["sets"]],
    ids=lambda one: one if isinstance(one, str) else f"{one['resolution']} {one['aspect']} {one['step']}",
)
def test_every_size_that_their_code_made(name: str, golden: dict[str, Any]) -> None:
    config = DataConfig(
        path=Path("a"),
        geometry=name,
        resolution=float(golden["resolution"]),
        aspect=golden["aspect"],
        bucket_step=golden["step"],
        upscale=True,
    )
    assert len(golden["rows"]) == 600
    for width, height, *numbers in golden["rows"]:
        placed = place_picture(width, height, config=config)
        assert [placed.resize_width, placed.resize_height, placed.bucket.width, placed.bucket.height] == numbers, (width, height)


# --- any geometry

CONFIGS = st.fixed_dictionaries(
    {
        "geometry": st.sampled_from(["ours", "ai-toolkit", "kohya", "onetrainer", "simpletuner"]),
        "aspect": st.sampled_from(["bucket", "square", "closest", "random"]),
        "upscale": st.booleans(),
        "resolution_type": st.sampled_from(["area", "shorter_edge"]),
        "bucket_step": st.sampled_from([16, 64]),
        "downsample_to": st.sampled_from([None, 640.0]),
    }
)


@given(SIDES, SIDES, CONFIGS, st.sampled_from(["center", "corner", "random"]), st.integers())
def test_never_outside_and_never_enlarged_unasked(width: int, height: int, keys: dict[str, Any], crop: str, seed: int) -> None:
    assume(keys["resolution_type"] == "area" or keys["geometry"] in ("ours", "simpletuner"))
    shapes = [1.0, 0.75, 1.6] if keys["aspect"] in ("closest", "random") else []
    config = DataConfig(path=Path("a"), resolution=512.0, crop=crop, aspects=shapes, **keys)
    aspect = choose_aspect(width, height, config=config, seed_parts=(seed,))
    assert (aspect is None) == (not shapes)
    try:
        placed = place_picture(width, height, config=config, aspect=aspect)
    except DataError as error:
        assume("too small" not in error.what and "too long" not in error.what)
        raise
    for one in cut_crops(placed, style=config.crop, num_crops=3, seed_parts=(seed,)):
        assert 0 <= one.left <= one.resize_width - one.width and 0 <= one.top <= one.resize_height - one.height
        assert one.width % config.step_pixels == one.height % config.step_pixels == 0
        if not config.upscale:
            assert one.resize_width <= width and one.resize_height <= height


@given(SIDES, SIDES, st.sampled_from(["area", "shorter_edge"]), st.booleans())
def test_sides_of_buckets_lie_between(width: int, height: int, unit: str, upscale: bool) -> None:
    config = DataConfig(
        path=Path("a"), resolution=512.0, resolution_type=unit, bucket_step=16, upscale=upscale, shortest_side=384, longest_side=800
    )
    try:
        bucket = place_picture(width, height, config=config).bucket
    except DataError as error:
        assert "shortest_side is 384" in error.what and not upscale
        return
    assert min(bucket.width, bucket.height) >= 384 and max(bucket.width, bucket.height) <= 800


def test_shapes_are_drawn_as_often_as_their_weights_say() -> None:
    config = DataConfig(path=Path("a"), aspect="random", aspects=[1.0, 0.5], aspect_weights=[3.0, 1.0])
    drawn = [choose_aspect(900, 600, config=config, seed_parts=(1, f"{n}")) for n in range(10000)]
    assert abs(drawn.count(1.0) / 10000 - 0.75) < 0.02
    assert drawn == [choose_aspect(400, 600, config=config, seed_parts=(1, f"{n}")) for n in range(10000)]


@pytest.mark.parametrize(
    ("size", "keys", "resized"),
    [
        ((3000, 2000), {}, (768, 512)),
        ((3000, 2000), {"downsample_to": 1024.0}, (1254, 836)),
        ((900, 600), {"downsample_to": 1024.0}, (900, 600)),  # not enlarged
        ((900, 600), {"downsample_to": 1024.0, "downsample_above": 1500.0}, (768, 512)),
        ((3000, 2000), {"downsample_to": 1024.0, "downsample_above": 1500.0}, (1254, 836)),
        ((3000, 2000), {"downsample_to": 800.0, "resolution_type": "shorter_edge"}, (1200, 800)),
    ],
)
def test_a_window_out_of_a_larger_picture(size: tuple[int, int], keys: dict[str, Any], resized: tuple[int, int]) -> None:
    placed = place_picture(*size, config=DataConfig(path=Path("a"), resolution=512.0, aspect="square", **keys))
    assert (placed.resize_width, placed.resize_height) == resized and placed.bucket == Bucket(512, 512)
