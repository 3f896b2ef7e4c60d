"""Masks: what is read from files, what is drawn, and in which windows one shows."""

from __future__ import annotations

from io import BytesIO

import numpy as np
import pytest
from hypothesis import example, given
from hypothesis import strategies as st
from PIL import Image

from weber.data.crops import Crop
from weber.data.masks import LARGEST_SHARE, SMALLEST_SHARE, draw_mask, list_showing, read_white
from weber.errors import DataError

SIDES = st.integers(2, 24).map(lambda number: 16 * number)


def _save(image: Image.Image, kind: str = "png") -> bytes:
    buffer = BytesIO()
    image.save(buffer, kind)
    return buffer.getvalue()


@given(SIDES, SIDES, st.text(max_size=20))
@example(16, 16, "")
@example(16, 384, "a")
def test_a_drawn_mask_covers_some_or_all(width: int, height: int, content: str) -> None:
    mask = draw_mask(width, height, content=content)
    assert (mask.shape, mask.dtype) == ((height, width), np.uint8)
    assert set(np.unique(mask).tolist()) <= {0, 255}
    share = (mask == 255).mean()
    assert share == 1 or SMALLEST_SHARE <= share <= LARGEST_SHARE
    assert np.array_equal(mask, draw_mask(width, height, content=content))


def test_drawn_masks_differ_and_now_and_then_are_whole() -> None:
    masks = [draw_mask(64, 48, content=f"1 abc {number}") for number in range(200)]
    whole = [mask for mask in masks if mask.all()]
    assert 10 <= len(whole) <= 35
    assert len({mask.tobytes() for mask in masks}) == 201 - len(whole)
    # strokes have round ends; a rectangle's outline is straight: of both kinds there are many
    straight = [mask for mask in masks if len({row.tobytes() for row in mask}) <= 8]
    assert 50 < len(straight) < 160


@pytest.mark.parametrize(
    ("mode", "values", "white"),
    [
        ("L", [0, 127, 128, 255], [0, 0, 255, 255]),
        ("1", [0, 255, 0, 255], [0, 255, 0, 255]),
        ("I;16", [0, 32000, 33000, 65535], [0, 0, 255, 255]),
        ("RGB", [(0, 0, 0), (255, 0, 0), (255, 255, 0), (255, 255, 255)], [0, 0, 255, 255]),
        ("RGBA", [(0, 0, 0, 255), (255, 255, 255, 0), (255, 255, 255, 255), (0, 0, 0, 0)], [0, 0, 255, 0]),
    ],
)
def test_white_is_painted_anew_in_every_mode(mode: str, values: list[object], white: list[int]) -> None:
    image = Image.new(mode, (4, 1))
    for x, value in enumerate(values):
        image.putpixel((x, 0), value)  # type: ignore[arg-type]
    assert np.asarray(read_white(_save(image)).image).tolist() == [white]


def test_a_mask_is_turned_upright_as_its_picture_is() -> None:
    image = Image.new("L", (20, 10))
    image.paste(255, (0, 0, 10, 10))
    exif = Image.Exif()
    exif[0x0112] = 6
    buffer = BytesIO()
    image.save(buffer, "png", exif=exif)
    mask = np.asarray(read_white(buffer.getvalue()).image)
    assert mask.shape == (20, 10)
    assert (mask[:10] == 255).all()
    assert (mask[10:] == 0).all()


@pytest.mark.parametrize(
    ("data", "reason"),
    [
        (_save(Image.new("L", (4, 4), 127)), "mask has nothing white: its brightest pixel is 127 of 255"),
        (b"", "empty file"),
        (b"no picture", "not a picture"),
    ],
)
def test_what_is_no_mask(data: bytes, reason: str) -> None:
    with pytest.raises(DataError) as error:
        read_white(data)
    assert error.value.what.startswith(reason)


@given(st.data(), st.integers(1, 40), st.integers(1, 40), st.integers(1, 60), st.integers(1, 60))
def test_a_mask_shows_exactly_where_a_solid_box_leaves_white(
    data: st.DataObject, width: int, height: int, resize_width: int, resize_height: int
) -> None:
    def span(stop: int) -> tuple[int, int]:
        start = data.draw(st.integers(0, stop - 1))
        return start, data.draw(st.integers(start + 1, stop))

    (left, right), (top, bottom) = span(width), span(height)
    (x, x_stop), (y, y_stop) = span(resize_width), span(resize_height)
    crop = Crop(resize_width, resize_height, x, y, x_stop - x, y_stop - y)
    mask = Image.new("L", (width, height))
    mask.paste(255, (left, top, right, bottom))
    cut = np.asarray(mask.resize((resize_width, resize_height), Image.Resampling.NEAREST))[y:y_stop, x:x_stop]
    shows = list_showing([crop], box=(left, top, right, bottom), width=width, height=height)
    assert shows == ((crop,) if cut.any() else ())
