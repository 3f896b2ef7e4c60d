"""What encoders are shown: windows of pictures, and masks for exactly those windows."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from weber.data.crops import Crop
from weber.data.images import encode_content
from weber.data.masks import Mask, draw_mask
from weber.data.views import View, build_view, read_mask, read_pixels
from weber.errors import DataError

Write = Callable[..., Path]


def _view(path: Path, crop: Crop, mask: Mask | None = None) -> View:
    return View(path, encode_content(path.read_bytes()), crop, mask)


def _mask(path: Path) -> Mask:
    return Mask(path, encode_content(path.read_bytes()))


def test_pixels_are_resized_and_cut(tmp_path: Path) -> None:
    image = Image.new("RGB", (200, 100), "red")
    image.paste("blue", (100, 0, 200, 100))
    image.save(tmp_path / "a.png")
    pixels = read_pixels(_view(tmp_path / "a.png", Crop(128, 64, 0, 0, 64, 64)))
    assert pixels.shape == (64, 64, 3)
    assert pixels.dtype == np.uint8
    assert pixels.flags.writeable
    assert (pixels[:, :56] == [255, 0, 0]).all()
    whole = image.resize((128, 64), Image.Resampling.LANCZOS)
    center = read_pixels(_view(tmp_path / "a.png", Crop(128, 64, 40, 0, 64, 64)))
    assert (center == np.asarray(whole)[:, 40:104]).all()


def test_pixels_of_a_picture_of_that_size_are_its_own(tmp_path: Path, write_picture: Write) -> None:
    path = write_picture(tmp_path / "a.png")
    assert (read_pixels(build_view(path, size=(64, 64))) == np.asarray(Image.open(path))).all()


def test_a_mask_is_cut_as_its_picture_is(tmp_path: Path, write_picture: Write) -> None:
    path = write_picture(tmp_path / "a.png", 200, 100)
    mask = Image.new("L", (100, 50))  # of half the resolution
    mask.paste(255, (50, 0, 100, 25))
    mask.save(tmp_path / "mask.png")
    white = read_mask(_view(path, Crop(128, 64, 32, 0, 64, 64), _mask(tmp_path / "mask.png")))
    assert white.shape == (64, 64)
    assert white.dtype == np.uint8
    expected = np.zeros((64, 64), dtype=np.uint8)
    expected[:32, 32:] = 255
    assert (white == expected).all()


def test_a_drawn_mask_has_the_size_of_the_window(tmp_path: Path, write_picture: Write) -> None:
    path = write_picture(tmp_path / "a.png")
    white = read_mask(_view(path, Crop(64, 64, 0, 0, 48, 32), Mask(None, "1 abc 0")))
    assert (white == draw_mask(48, 32, content="1 abc 0")).all()


@pytest.mark.parametrize("change", ["other bytes", "gone"])
@pytest.mark.parametrize("changed", ["a.png", "mask.png"])
def test_a_file_that_changed_is_an_error(tmp_path: Path, write_picture: Write, change: str, changed: str) -> None:
    path, mask = write_picture(tmp_path / "a.png"), write_picture(tmp_path / "mask.png", seed=1)
    view = _view(path, Crop(64, 64, 0, 0, 64, 64), _mask(mask))
    if change == "gone":
        (tmp_path / changed).unlink()
    else:
        write_picture(tmp_path / changed, seed=9)
    with pytest.raises(DataError, match=rf"{changed}.* (was changed|can no longer be read)"):
        (read_pixels if changed == "a.png" else read_mask)(view)


# --- a file that a person names


def test_a_view_of_a_file_is_its_middle(tmp_path: Path, write_picture: Write) -> None:
    path = write_picture(tmp_path / "a.png", 300, 100)
    view = build_view(path, size=(64, 64))
    assert view == View(path, encode_content(path.read_bytes()), Crop(192, 64, 64, 0, 64, 64))
    assert view.describe() == view.crop.describe()


def test_a_view_may_take_its_size_from_the_file(tmp_path: Path, write_picture: Write) -> None:
    path = write_picture(tmp_path / "a.png", 300, 100)
    view = build_view(path, size=lambda width, height: (width // 2, height // 2 + 14))
    assert read_pixels(view).shape == (64, 150, 3)


def test_a_view_with_a_mask(tmp_path: Path, write_picture: Write) -> None:
    path = write_picture(tmp_path / "a.png", 300, 100)
    Image.new("L", (151, 50), 255).save(tmp_path / "mask.png")
    view = build_view(path, size=(64, 64), mask=tmp_path / "mask.png")
    assert read_mask(view).shape == (64, 64)
    assert view.describe() != build_view(path, size=(64, 64)).describe()


@pytest.mark.parametrize(
    ("picture", "mask", "words"),
    [
        ("missing.png", None, ["missing.png", "cannot be used", "No such file"]),
        ("text.png", None, ["text.png", "not a picture"]),
        ("a.png", "black.png", ["black.png", "cannot be used", "nothing white"]),
        ("a.png", "square.png", ["square.png", "does not fit", "a.png", "another shape: 64 x 64 pixels, its picture 300 x 100"]),
    ],
)
def test_a_file_that_cannot_be_used_is_named(
    tmp_path: Path, write_picture: Write, picture: str, mask: str | None, words: list[str]
) -> None:
    write_picture(tmp_path / "a.png", 300, 100)
    (tmp_path / "text.png").write_text("a cat", encoding="utf-8")
    Image.new("L", (300, 100)).save(tmp_path / "black.png")
    Image.new("L", (64, 64), 255).save(tmp_path / "square.png")
    with pytest.raises(DataError) as error:
        build_view(tmp_path / picture, size=(64, 64), mask=None if mask is None else tmp_path / mask)
    assert [word for word in words if word not in str(error.value)] == []
    assert error.value.fix
