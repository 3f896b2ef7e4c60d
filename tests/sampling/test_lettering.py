"""Text of any script is drawn as its own letters, within its width."""

from __future__ import annotations

import numpy as np
import pytest
from PIL import Image

from weber.sampling.lettering import LINE_PIXELS, TEXT_PIXELS, draw_text, measure_text, wrap_text


def _draw(text: str) -> np.ndarray:
    picture = Image.new("RGB", (measure_text(text) + 8, LINE_PIXELS + 8), "white")
    draw_text(picture, (4, 4), text=text)
    return np.asarray(picture.convert("L"))


LETTERS = "éßŁжλ字文あ한😀🍎→€אع"


def test_no_letter_is_a_box() -> None:
    drawn = {letter: _draw(letter).tobytes() for letter in LETTERS}
    assert len(set(drawn.values())) == len(LETTERS), "each letter has a look of its own"
    assert not set(drawn.values()) & {_draw("\U0010ffff").tobytes()}


@pytest.mark.parametrize(("text", "pixels"), [("字", 16), ("ж", 8), ("字字ж", 40), ("", 0), ("\u200d\ufe0f", 0), ("e\u0301", 8)])
def test_a_text_is_as_wide_as_its_letters(text: str, pixels: int) -> None:
    assert measure_text(text) == pixels


def test_a_letter_in_two_parts_is_one() -> None:
    assert np.array_equal(_draw("cafe\u0301"), _draw("café"))


def test_a_text_stays_in_its_box() -> None:
    picture = _draw("Ägypten: 字, あ and 😀 (yes)")
    assert picture[:, :3].min() == 255 and picture[:, -3:].min() == 255
    assert picture[:4].min() == 255 and picture[4 + LINE_PIXELS :].min() == 255
    assert picture.min() == 0


@pytest.mark.parametrize(
    ("text", "lines"),
    [
        ("", [""]),
        ("字" * 7, ["字" * 3, "字" * 3, "字"]),
        ("字字 字字", ["字字", "字字"]),
        ("字字字字字字字字字字", ["字字字"] * 3),
        ("a\nb", ["a b"]),
    ],
)
def test_a_text_is_broken_where_it_must(text: str, lines: list[str]) -> None:
    assert wrap_text(text, 3 * TEXT_PIXELS, max_lines=3) == lines


@pytest.mark.parametrize("text", ["a photo of a cat", "x" * 200, "красный кот в шляпе", "一只戴着红帽子的猫", "mixed 混合 text ü"])
def test_no_line_is_wider_than_asked(text: str) -> None:
    lines = wrap_text(text, 100, max_lines=50)
    assert all(0 < measure_text(line) <= 100 for line in lines)
    assert "".join(lines).replace(" ", "") == text.replace(" ", "")
