"""Contact sheets: the pictures are where their column and row say, unharmed, with text between them."""

from __future__ import annotations

import numpy as np
import pytest
from PIL import Image

from weber.sampling.grid import MARGIN_PIXELS, SMALLEST_CELL_PIXELS, build_sheet

COLORS = ["red", "lime", "blue", "yellow", "cyan", "magenta"]


def _find(sheet: Image.Image, color: str) -> tuple[int, int, int, int]:
    """Left, top, right, bottom of the pixels of exactly that color."""
    pixels = np.asarray(sheet)
    rows, columns = np.nonzero((pixels == np.asarray(Image.new("RGB", (1, 1), color))[0, 0]).all(axis=2))
    return int(columns.min()), int(rows.min()), int(columns.max()) + 1, int(rows.max()) + 1


def _build(width: int, height: int, *, num_columns: int, num_rows: int, caption: str = "a red apple") -> Image.Image:
    pictures = iter([Image.new("RGB", (width, height), color) for color in COLORS])
    rows = [(caption, [next(pictures) for _ in range(num_columns)]) for _ in range(num_rows)]
    return build_sheet([f"step {number}" for number in range(num_columns)], rows)


@pytest.mark.parametrize(("width", "height", "factor"), [(64, 64, 3), (48, 96, 4), (300, 200, 1), (192, 192, 1), (191, 64, 2)])
def test_pictures_are_where_they_should_be(width: int, height: int, factor: int) -> None:
    sheet = _build(width, height, num_columns=2, num_rows=3)
    boxes = [_find(sheet, color) for color in COLORS]
    cell_width, cell_height = width * factor, height * factor
    for number, (left, top, right, bottom) in enumerate(boxes):
        row, column = divmod(number, 2)
        assert (right - left, bottom - top) == (cell_width, cell_height)
        assert left == MARGIN_PIXELS + column * (cell_width + MARGIN_PIXELS)
        assert top == boxes[2 * row][1]
    tops = [boxes[2 * row][1] for row in range(3)]
    assert tops[1] - tops[0] == tops[2] - tops[1] > cell_height + MARGIN_PIXELS
    assert sheet.width == MARGIN_PIXELS + 2 * (cell_width + MARGIN_PIXELS)
    assert sheet.height > boxes[-1][3] + MARGIN_PIXELS
    assert cell_width >= SMALLEST_CELL_PIXELS


def test_text_is_above_the_columns_and_below_the_rows() -> None:
    sheet = _build(200, 200, num_columns=2, num_rows=1)
    pixels = np.asarray(sheet.convert("L"))
    left, top, right, bottom = _find(sheet, "red")
    assert pixels[:top, left:right].min() < 100
    assert pixels[:top, _find(sheet, "lime")[0] :].min() < 100
    assert pixels[bottom:, :].min() < 100
    assert pixels[:, :MARGIN_PIXELS].min() == 255
    assert pixels[:, -MARGIN_PIXELS:].min() == 255


@pytest.mark.parametrize("caption", ["", "a " * 400, "x" * 500, "Ünïcode 😀 字", "two\nlines"])
def test_any_caption_leaves_the_pictures_alone(caption: str) -> None:
    sheet = _build(200, 100, num_columns=1, num_rows=2, caption=caption)
    for color in ("red", "lime"):
        left, top, right, bottom = _find(sheet, color)
        assert (right - left, bottom - top) == (200, 100)
        assert np.array_equal(np.unique(np.asarray(sheet.crop((left, top, right, bottom))).reshape(-1, 3), axis=0).shape, (1, 3))


def test_pictures_of_one_sheet_may_differ_in_size() -> None:
    rows = [("one", [Image.new("RGB", (200, 300), "red")]), ("two", [Image.new("RGB", (300, 200), "lime")])]
    sheet = build_sheet(["base model"], rows)
    assert _find(sheet, "red")[2] - _find(sheet, "red")[0] == 200
    assert _find(sheet, "lime")[1] >= _find(sheet, "red")[3]
    assert _find(sheet, "lime")[2] <= sheet.width
