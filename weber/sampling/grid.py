"""Contact sheets: pictures in rows, a line of text above each column and below each row."""

from __future__ import annotations

import textwrap
from collections.abc import Sequence

from PIL import Image, ImageDraw, ImageFont

MARGIN_PIXELS = 12
TEXT_PIXELS = 16
SMALLEST_CELL_PIXELS = 192


def build_sheet(columns: Sequence[str], rows: Sequence[tuple[str, Sequence[Image.Image]]]) -> Image.Image:
    """A sheet with one titled column per entry of `columns` and one captioned row of pictures per entry of `rows`.

    Small pictures are enlarged by a whole factor, so that a person can look at them.
    """
    factor = max(1, -(-SMALLEST_CELL_PIXELS // max(picture.width for _, pictures in rows for picture in pictures)))
    cell_width = max(picture.width for _, pictures in rows for picture in pictures) * factor
    cell_height = max(picture.height for _, pictures in rows for picture in pictures) * factor
    font = ImageFont.load_default(TEXT_PIXELS)
    width = MARGIN_PIXELS + len(columns) * (cell_width + MARGIN_PIXELS)
    characters = max(8, int((width - 2 * MARGIN_PIXELS) / (0.55 * TEXT_PIXELS)))
    captions = [textwrap.wrap(caption, characters)[:3] or [""] for caption, _ in rows]
    line = TEXT_PIXELS + 4
    heights = [cell_height + len(caption) * line + 2 * MARGIN_PIXELS for caption in captions]
    sheet = Image.new("RGB", (width, MARGIN_PIXELS + line + sum(heights)), "white")
    draw = ImageDraw.Draw(sheet)
    for column, title in enumerate(columns):
        draw.text((MARGIN_PIXELS + column * (cell_width + MARGIN_PIXELS), MARGIN_PIXELS // 2), title, "black", font=font)
    top = MARGIN_PIXELS + line
    for (_, pictures), caption, height in zip(rows, captions, heights, strict=True):
        for column, picture in enumerate(pictures):
            enlarged = picture.resize((picture.width * factor, picture.height * factor), Image.Resampling.LANCZOS)
            sheet.paste(enlarged, (MARGIN_PIXELS + column * (cell_width + MARGIN_PIXELS), top))
        for number, text in enumerate(caption):
            draw.text((MARGIN_PIXELS, top + cell_height + 4 + number * line), text, "black", font=font)
        top += height
    return sheet
