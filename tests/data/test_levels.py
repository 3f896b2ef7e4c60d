"""What mask files with transparent parts say: what is transparent is not learned, and a cut-out is learned as a whole."""

from __future__ import annotations

from collections.abc import Callable
from io import BytesIO
from pathlib import Path

import numpy as np
import pytest
from PIL import Image, ImageDraw

from weber.config.data import DataConfig
from weber.data.dataset import Dataset
from weber.data.levels import CUTOUT, LAYER, read_levels
from weber.data.sets import PictureLimits
from weber.data.views import build_view, read_loss_mask, read_mask
from weber.errors import DataError

Read = Callable[..., Dataset]
Write = Callable[..., Path]

INSIDE = (16, 16, 47, 47)


def _draw(fill: tuple[int, ...], around: tuple[int, ...] = (0, 0, 0, 0)) -> Image.Image:
    image = Image.new("RGBA", (64, 64), around)
    ImageDraw.Draw(image).rectangle(INSIDE, fill=fill)
    return image


def _encode(image: Image.Image, kind: str = "PNG") -> bytes:
    buffer = BytesIO()
    image.save(buffer, kind)
    return buffer.getvalue()


@pytest.mark.parametrize(
    ("image", "form", "inside", "outside"),
    [
        (_draw((30, 30, 30, 255)), CUTOUT, 255, 0),  # a dark subject, as background removers write it
        (_draw((200, 120, 40, 255), (255, 255, 255, 0)), CUTOUT, 255, 0),
        (_draw((255, 255, 255, 255)), LAYER, 255, 0),  # a white brush on a transparent layer
        (_draw((250, 252, 249, 128)), LAYER, 125, 0),  # a soft one
        (_draw((0, 0, 0, 255), (255, 255, 255, 255)), "", 0, 255),  # an opaque mask with an alpha channel
        (_draw((0, 0, 0, 255), (255, 255, 255, 0)), LAYER, 0, 0),  # black on nothing
        (_draw((255, 255, 255, 0), (255, 255, 255, 255)), LAYER, 0, 255),  # erased
        (_draw((200, 120, 40, 255), (255, 255, 255, 255)).convert("RGB"), "", 135, 255),
    ],
)
def test_transparent_is_not_learned(image: Image.Image, form: str, inside: int, outside: int) -> None:
    levels = read_levels(_encode(image))
    pixels = np.asarray(levels.image)
    assert (levels.form, int(pixels[30, 30]), int(pixels[2, 2])) == (form, inside, outside)
    assert levels.share == pytest.approx((inside * 32**2 + outside * (64**2 - 32**2)) / 255 / 64**2, abs=1e-6)


def test_palettes_and_transparent_gray() -> None:
    palette = Image.new("P", (2, 1), 0)
    palette.putpalette([255, 255, 255, 0, 0, 0])
    palette.putpixel((1, 0), 1)
    buffer = BytesIO()
    palette.save(buffer, "PNG", transparency=bytes([0, 255]))
    assert np.asarray(read_levels(buffer.getvalue()).image).tolist() == [[0, 0]]
    assert np.asarray(read_levels(_encode(Image.new("LA", (1, 1), (255, 100)))).image).tolist() == [[100]]


def test_masks_for_the_loss_from_files(tmp_path: Path, write_picture: Write, read_sets: Read) -> None:
    for number, image in enumerate([_draw((30, 30, 30, 255)), _draw((255, 255, 255, 255)), _draw((0, 0, 0, 255))]):
        write_picture(tmp_path / "set" / f"{number}.png", seed=number)
        (tmp_path / "masks").mkdir(exist_ok=True)
        image.save(tmp_path / "masks" / f"{number}.png")
    dataset = read_sets(DataConfig(path=tmp_path / "set", loss_masks=tmp_path / "masks", resolution=64, bucket_step=16))
    for example in dataset.examples:
        window = example.learned(0)
        assert window is not None and window.mask.share == pytest.approx(0.25)
        shares = read_loss_mask(window, shape=(8, 8))
        assert (shares[4, 4], shares[0, 0]) == (1, 0)
    assert [item.reason for item in dataset.set_aside] == [
        "unusable loss mask: 2.png: all that is inside of the crop is black or transparent"
    ]


def test_masks_of_a_model_that_repaints(tmp_path: Path, write_picture: Write, read_sets: Read) -> None:
    picture = write_picture(tmp_path / "set" / "a.png")
    (tmp_path / "masks").mkdir()
    _draw((30, 30, 30, 255)).save(tmp_path / "masks" / "a.png")
    config = DataConfig(path=tmp_path / "set", masks=tmp_path / "masks", resolution=64, bucket_step=16)
    (example,) = read_sets(config, inputs=PictureLimits(repaints=True)).examples
    view = example.masked(0, 0)
    assert view is not None and view == build_view(picture, size=(64, 64), mask=tmp_path / "masks" / "a.png")
    assert read_mask(view)[30, 30] == 255 and read_mask(view)[2, 2] == 0
    assert example.masks[0].describe().startswith("cut-out mask 1 ") and example.masks[0].share == pytest.approx(0.25)
    Image.new("RGBA", (64, 64), (255, 255, 255, 0)).save(tmp_path / "masks" / "a.png")
    with pytest.raises(DataError, match="nothing white: its brightest pixel is 0 of 255, what is transparent counts as black"):
        build_view(picture, size=(64, 64), mask=tmp_path / "masks" / "a.png")
