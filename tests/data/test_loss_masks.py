"""Masks for the loss: they follow the crop of their picture, to the last part of a pixel, and what has none is learned as a whole."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from fractions import Fraction
from io import BytesIO
from math import ceil, floor
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from numpy.typing import NDArray
from PIL import Image

from weber.config.data import DataConfig
from weber.data.crops import Crop
from weber.data.dataset import Dataset
from weber.data.loss_masks import LossMask, LossWindow, build_shares, find_box, shows
from weber.data.sets import PictureLimits
from weber.data.views import read_loss_mask
from weber.errors import ConfigError, DataError

WritePicture = Callable[..., Path]
ReadSets = Callable[..., Dataset]


def _encode(image: Image.Image, kind: str = "png", **settings: object) -> bytes:
    buffer = BytesIO()
    image.save(buffer, kind, **settings)
    return buffer.getvalue()


def _window(crop: Crop, *, is_alpha: bool = False) -> LossWindow:
    return LossWindow(LossMask(Path("mask.png"), "content", is_alpha), crop)


def _average(pixels: NDArray[np.uint8], crop: Crop, shape: tuple[int, int]) -> NDArray[np.float64]:
    """The mean over each cell, in fractions, pixel by pixel."""
    height, width = pixels.shape

    def span(number: int, num: int, start: int, length: int, size: int, resized: int) -> list[tuple[int, Fraction]]:
        first, stop = (Fraction(size, resized) * (start + Fraction(length * one, num)) for one in (number, number + 1))
        inside = range(floor(first), ceil(stop))
        return [(pixel, min(stop, Fraction(pixel + 1)) - max(first, Fraction(pixel))) for pixel in inside]

    means = np.zeros(shape)
    for y in range(shape[0]):
        rows = span(y, shape[0], crop.top, crop.height, height, crop.resize_height)
        for x in range(shape[1]):
            columns = span(x, shape[1], crop.left, crop.width, width, crop.resize_width)
            total = sum(int(pixels[row, column]) * high * wide for row, high in rows for column, wide in columns)
            means[y, x] = total / sum(high * wide for _, high in rows for _, wide in columns) / 255
    return means


@given(st.data())
def test_a_mask_is_the_exact_mean_over_what_is_seen_of_the_picture(data: st.DataObject) -> None:
    width, height, resize_width, resize_height = (data.draw(st.integers(2, 40)) for _ in range(4))
    left, top = data.draw(st.integers(0, resize_width - 1)), data.draw(st.integers(0, resize_height - 1))
    seen_width, seen_height = data.draw(st.integers(1, resize_width - left)), data.draw(st.integers(1, resize_height - top))
    crop = Crop(resize_width, resize_height, left, top, seen_width, seen_height)
    shape = data.draw(st.integers(1, 6)), data.draw(st.integers(1, 6))
    pixels = np.random.default_rng(data.draw(st.integers(0, 99))).integers(0, 256, (height, width), dtype=np.uint8)
    shares = build_shares(_encode(Image.fromarray(pixels)), _window(crop), shape=shape)
    assert shares.dtype == np.float32
    assert np.allclose(shares, _average(pixels, crop, shape), atol=1e-6)


def test_at_whole_numbers_it_is_pillows_box_filter() -> None:
    pixels = np.random.default_rng(3).integers(0, 256, (192, 256), dtype=np.uint8)
    crop = Crop(128, 96, 24, 16, 64, 64)  # the mask is twice as large as the resized picture; the latents are an eighth of the window
    shares = build_shares(_encode(Image.fromarray(pixels)), _window(crop), shape=(8, 8))
    cut = Image.fromarray(pixels.astype(np.float32)).crop((48, 32, 176, 160))
    assert np.allclose(shares, np.asarray(cut.resize((8, 8), Image.Resampling.BOX)) / 255, atol=1e-6)


def test_black_is_exactly_0_and_white_exactly_1_and_gray_between() -> None:
    mask = Image.new("L", (97, 61), 255)
    mask.paste(0, (0, 0, 40, 61))
    shares = build_shares(_encode(mask), _window(Crop(128, 80, 0, 0, 128, 80)), shape=(10, 16))
    edge = 40 * 128 / 97 / 8  # in cells
    assert (shares[:, : int(edge)] == 0).all() and (shares[:, int(edge) + 1 :] == 1).all()
    assert np.allclose(shares[:, int(edge)], 1 - edge % 1, atol=1e-6)
    gray = build_shares(_encode(Image.new("L", (5, 5), 51)), _window(Crop(64, 64, 0, 0, 64, 64)), shape=(8, 8))
    assert np.allclose(gray, 0.2, atol=1e-7)


def test_a_mask_follows_the_picture_itself(tmp_path: Path, write_picture: WritePicture, read_sets: ReadSets) -> None:
    """A picture that is its own mask: what is cut out of it is what is read of the mask."""
    pixels = np.random.default_rng(0).integers(0, 2, (12, 20), dtype=np.uint8).repeat(8, 0).repeat(8, 1) * np.uint8(255)
    for folder in ("pictures", "masks"):
        (tmp_path / folder).mkdir()
        Image.fromarray(pixels).save(tmp_path / folder / "a.png")
    config = DataConfig(path=tmp_path / "pictures", loss_masks=tmp_path / "masks", captions="none", resolution=64, bucket_step=16)
    (example,) = read_sets(config.model_copy(update={"aspect": "square", "crop": "random"})).examples
    assert len(example.crops) == 4
    for number, crop in enumerate(example.crops):
        window = example.learned(number)
        assert window is not None and window.crop == crop
        shares = read_loss_mask(window, shape=(8, 8))
        whole = Image.fromarray(pixels.astype(np.float32) / 255).resize((crop.resize_width, crop.resize_height), Image.Resampling.BOX)
        seen = whole.crop((crop.left, crop.top, crop.left + 64, crop.top + 64)).resize((8, 8), Image.Resampling.BOX)
        assert np.abs(shares - np.asarray(seen)).max() < 0.1  # Pillow's filter takes whole pixels


@pytest.mark.parametrize(
    ("image", "expected"),
    [
        (Image.new("L", (4, 4), 255), None),
        (Image.new("L", (4, 4), 0), ()),
        (Image.new("L", (4, 4), 128), (0, 0, 4, 4)),
        (None, None),
    ],
)
def test_the_box_of_what_is_learned(image: Image.Image | None, expected: tuple[int, ...] | None) -> None:
    assert find_box(image) == expected


@given(st.data())
def test_a_window_counts_where_a_solid_box_is_inside_of_it(data: st.DataObject) -> None:
    width, height, resize_width, resize_height = (data.draw(st.integers(1, 30)) for _ in range(4))

    def span(stop: int) -> tuple[int, int]:
        start = data.draw(st.integers(0, stop - 1))
        return start, data.draw(st.integers(start + 1, stop))

    (left, right), (top, bottom), (x, x_stop), (y, y_stop) = span(width), span(height), span(resize_width), span(resize_height)
    mask = Image.new("L", (width, height))
    mask.paste(255, (left, top, right, bottom))
    crop = Crop(resize_width, resize_height, x, y, x_stop - x, y_stop - y)
    shares = build_shares(_encode(mask), _window(crop), shape=(1, 1))
    assert shows(crop, box=(left, top, right, bottom), size=(width, height)) == (shares.item() > 1e-9)


@pytest.mark.parametrize("mode", ["RGBA", "LA", "P", "I;16"])
def test_alpha_of_every_mode(tmp_path: Path, read_sets: ReadSets, mode: str) -> None:
    alpha = np.full((64, 64), 255, dtype=np.uint8)
    alpha[:, :32] = 0
    if mode in ("RGBA", "LA"):
        image = Image.new(mode, (64, 64))
        image.putalpha(Image.fromarray(alpha))
        image.save(tmp_path / "a.png")
    elif mode == "P":
        image = Image.fromarray(alpha // 255, "P")
        image.putpalette([0, 0, 0, 255, 255, 255])
        image.save(tmp_path / "a.png", transparency=0)
    else:
        Image.fromarray(alpha.astype(np.uint16) * 200).save(tmp_path / "a.png", transparency=0)
    (example,) = read_sets(DataConfig(path=tmp_path, alpha_mask=True, captions="none", resolution=64, bucket_step=16)).examples
    window = example.learned(0)
    assert window is not None and window.mask.is_alpha
    shares = read_loss_mask(window, shape=(8, 8))
    assert (shares[:, :4] == 0).all() and (shares[:, 4:] == 1).all()


def test_an_alpha_channel_is_turned_as_its_picture(tmp_path: Path, read_sets: ReadSets) -> None:
    image = Image.new("RGBA", (64, 64), (0, 0, 0, 255))
    image.paste((0, 0, 0, 0), (0, 0, 64, 32))
    exif = Image.Exif()
    exif[0x0112] = 6
    image.save(tmp_path / "a.png", exif=exif)
    (example,) = read_sets(DataConfig(path=tmp_path, alpha_mask=True, captions="none", resolution=64, bucket_step=16)).examples
    window = example.learned(0)
    assert window is not None
    shares = read_loss_mask(window, shape=(8, 8))
    assert (shares[:, 4:] == 0).all() and (shares[:, :4] == 1).all()


def _write_mask(path: Path, size: tuple[int, int] = (32, 32), *, white: tuple[int, int, int, int] = (0, 0, 16, 16)) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    mask = Image.new("L", size)
    mask.paste(255, white)
    mask.save(path)


def test_a_picture_without_a_mask_is_learned_as_a_whole(tmp_path: Path, write_picture: WritePicture, read_sets: ReadSets) -> None:
    folder, masks = tmp_path / "pictures", tmp_path / "pictures" / "masks"
    for number, name in enumerate(("hard", "none", "white", "wide", "black", "twice", "outside")):
        write_picture(folder / f"{name}.png", 64, 128 if name == "outside" else 64, seed=number)
    _write_mask(masks / "hard.jpg")
    Image.new("L", (16, 16), 255).save(masks / "white.png")
    _write_mask(masks / "wide.png", (64, 32))
    Image.new("L", (16, 16)).save(masks / "black.png")
    for kind in ("bmp", "jpg"):
        _write_mask(masks / f"twice.{kind}")
    _write_mask(masks / "outside.png", (32, 64), white=(0, 0, 32, 8))
    config = DataConfig(path=folder, loss_masks=masks, resolution=64, bucket_step=16, aspect="square")
    dataset = read_sets(config)
    assert {one.path.stem: one.loss_mask is not None for one in dataset.examples} == {"hard": True, "none": False, "white": False}
    assert {one.path.stem: one.reason for one in dataset.set_aside} == {
        "wide": "unusable loss mask: wide.png: another shape: 64 x 32 pixels, its picture 64 x 64",
        "black": "unusable loss mask: black.png: all that is inside of the crop is black",
        "outside": "unusable loss mask: outside.png: all that is inside of the crop is black",
        "twice": f"several loss masks: twice.bmp and twice.jpg in {masks}",
    }
    assert read_sets(config).num_opened == 0


def test_random_windows_without_anything_to_learn_are_left_out(tmp_path: Path, write_picture: WritePicture, read_sets: ReadSets) -> None:
    write_picture(tmp_path / "pictures" / "a.png", 64, 256)
    _write_mask(tmp_path / "masks" / "a.png", (64, 256), white=(0, 0, 64, 40))
    config = DataConfig(
        path=tmp_path / "pictures", resolution=64, bucket_step=16, aspect="square", crop="random", num_crops=40
    )
    (plain,) = read_sets(config).examples
    (masked,) = read_sets(config.model_copy(update={"loss_masks": tmp_path / "masks"})).examples
    assert masked.crops == tuple(crop for crop in plain.crops if crop.top < 40)
    assert 0 < len(masked.crops) < len(plain.crops)
    assert all(read_loss_mask(window, shape=(8, 8)).any() for n in range(len(masked.crops)) if (window := masked.learned(n)))


def test_a_setting_that_masks_nothing_is_an_error(tmp_path: Path, write_picture: WritePicture, read_sets: ReadSets) -> None:
    write_picture(tmp_path / "pictures" / "a.png")
    (tmp_path / "masks").mkdir()
    config = DataConfig(path=tmp_path / "pictures", resolution=64, bucket_step=16)
    with pytest.raises(DataError, match="has no mask for any picture") as error:
        read_sets(config.model_copy(update={"loss_masks": tmp_path / "masks"}))
    assert 'mask of "a.png"' in error.value.expected and "data.0.loss_masks" in error.value.fix
    Image.new("L", (64, 64), 255).save(tmp_path / "masks" / "a.png")
    with pytest.raises(DataError, match="data.0.loss_masks has no effect") as error:
        read_sets(config.model_copy(update={"loss_masks": tmp_path / "masks"}))
    assert "only white masks" in error.value.got and "data.0.loss_masks" in error.value.fix
    with pytest.raises(DataError, match="data.0.alpha_mask has no effect"):
        read_sets(config.model_copy(update={"alpha_mask": True}))
    with pytest.raises(DataError, match="is not a folder"):
        read_sets(config.model_copy(update={"loss_masks": tmp_path / "nowhere"}))
    Image.new("RGBA", (64, 64), (1, 2, 3, 0)).save(tmp_path / "pictures" / "a.png")
    with pytest.raises(DataError, match="inside of the crop is transparent"):
        read_sets(config.model_copy(update={"alpha_mask": True}))


def test_a_repainting_model_may_have_both_masks(tmp_path: Path, write_picture: WritePicture, read_sets: ReadSets) -> None:
    write_picture(tmp_path / "pictures" / "a.png")
    _write_mask(tmp_path / "masks" / "a.png")
    config = DataConfig(path=tmp_path / "pictures", masks=tmp_path / "masks", loss_masks=tmp_path / "masks", resolution=64, bucket_step=16)
    (example,) = read_sets(config, inputs=PictureLimits(repaints=True)).examples
    assert len(example.masks) == 1 and example.loss_mask is not None
    with pytest.raises(ConfigError, match="does not repaint"):
        read_sets(config)


def test_keys_name_all_that_the_numbers_depend_on() -> None:
    window = _window(Crop(64, 64, 0, 0, 64, 64))
    others = [
        replace(window, crop=Crop(64, 64, 1, 0, 63, 64)),
        replace(window, mask=replace(window.mask, is_alpha=True)),
    ]
    assert len({window.describe(), *(one.describe() for one in others)}) == 3
    assert replace(window, mask=replace(window.mask, path=Path("elsewhere"))).describe() == window.describe()
