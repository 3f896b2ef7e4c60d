"""Contact sheets: pictures in rows, a line of text above each column and below each row."""

from __future__ import annotations

from collections.abc import Sequence

from PIL import Image

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
    cell_height = max(picture.height for _, pictures in rows for picture in pictures) * factor
    width = MARGIN_PIXELS + len(columns) * (cell_width + MARGIN_PIXELS)
    captions = [wrap_text(caption, width - 2 * MARGIN_PIXELS, max_lines=MOST_LINES) for caption, _ in rows]
    heights = [cell_height + len(caption) * LINE_PIXELS + 2 * MARGIN_PIXELS for caption in captions]
    sheet = Image.new("RGB", (width, MARGIN_PIXELS + LINE_PIXELS + sum(heights)), "white")
    for column, title in enumerate(columns):
        [line] = wrap_text(title, cell_width, max_lines=1)
        draw_text(sheet, (MARGIN_PIXELS + column * (cell_width + MARGIN_PIXELS), MARGIN_PIXELS // 2), text=line)
    top = MARGIN_PIXELS + LINE_PIXELS
    for (_, pictures), caption, height in zip(rows, captions, heights, strict=True):
        for column, picture in enumerate(pictures):
            enlarged = picture.resize((picture.width * factor, picture.height * factor), Image.Resampling.LANCZOS)
            sheet.paste(enlarged, (MARGIN_PIXELS + column * (cell_width + MARGIN_PIXELS), top))
        for number, text in enumerate(caption):
            draw_text(sheet, (MARGIN_PIXELS, top + cell_height + 4 + number * LINE_PIXELS), text=text)
        top += height
    return sheet
