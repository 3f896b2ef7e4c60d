"""Contact sheets: pictures in rows, a line of text above each column and below each row."""

from __future__ import annotations

from collections.abc import Iterable, Sequence

import numpy as np
from PIL import Image

from weber.data.backends.backend import Backend
from weber.data.backends.sources import LOCAL
from weber.data.views import View, read_mask, read_pixels
from weber.sampling.lettering import LINE_PIXELS, draw_text, wrap_text

MARGIN_PIXELS = 12
SMALLEST_CELL_PIXELS = 192
MOST_LINES = 3


def build_sheet(columns: Sequence[str], rows: Sequence[tuple[str, Sequence[Image.Image]]]) -> Image.Image:
    """A sheet with one titled column per entry of `columns` and one captioned row of pictures per entry of `rows`.

    Small pictures are enlarged by a whole factor, so that a person can look at them.
    """
    factor = max(1, -(-SMALLEST_CELL_PIXELS // max(picture.width for _, pictures in rows for picture in pictures)))
    cell_width = max(picture.width for _, pictures in rows for picture in pictures) * factor
    width = MARGIN_PIXELS + len(columns) * (cell_width + MARGIN_PIXELS)
    captions = [wrap_text(caption, width - 2 * MARGIN_PIXELS, max_lines=MOST_LINES) for caption, _ in rows]
    tallest = [max(picture.height for picture in pictures) * factor for _, pictures in rows]
    heights = [cell + len(caption) * LINE_PIXELS + 2 * MARGIN_PIXELS for cell, caption in zip(tallest, captions, strict=True)]
    sheet = Image.new("RGB", (width, MARGIN_PIXELS + LINE_PIXELS + sum(heights)), "white")
    for column, title in enumerate(columns):
        [line] = wrap_text(title, cell_width, max_lines=1)
        draw_text(sheet, (MARGIN_PIXELS + column * (cell_width + MARGIN_PIXELS), MARGIN_PIXELS // 2), text=line)
    top = MARGIN_PIXELS + LINE_PIXELS
    for (_, pictures), caption, cell_height, height in zip(rows, captions, tallest, heights, strict=True):
        for column, picture in enumerate(pictures):
            enlarged = picture.resize((picture.width * factor, picture.height * factor), Image.Resampling.LANCZOS)
            sheet.paste(enlarged, (MARGIN_PIXELS + column * (cell_width + MARGIN_PIXELS), top))
        for number, text in enumerate(caption):
            draw_text(sheet, (MARGIN_PIXELS, top + cell_height + 4 + number * LINE_PIXELS), text=text)
        top += height
    return sheet


def build_given(views: Iterable[View], size: tuple[int, int], *, num: int, files: Backend = LOCAL) -> list[Image.Image]:
    """The pictures that go with a prompt, no larger than `size` (height, width), what is repainted tinted; fewer than `num`: white ones.

    `files`: where they are read.
    """
    height, width = size
    shown = []
    for view in views:
        pixels = read_pixels(view, files)
        if view.mask is not None:
            pixels = np.where(read_mask(view, files)[..., None] > 0, pixels // 4 + 96, pixels).astype(np.uint8)
        picture = Image.fromarray(pixels)
        picture.thumbnail((width, height))
        shown.append(picture)
    return shown + [Image.new("RGB", (width, height), "white")] * (num - len(shown))
