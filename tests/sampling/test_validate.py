"""From latents to files: levels of pixels, order of paintings, and PNGs that are whole or not there."""

from __future__ import annotations

from pathlib import Path
from typing import BinaryIO

import numpy as np
import pytest
import torch
from PIL import Image
from torch import Tensor

from weber.sampling.euler import Painting, draw_start
from weber.sampling.validate import decode_pictures, predict_paintings, save_picture

CPU = torch.device("cpu")


def test_levels_of_pixels() -> None:
    levels = torch.arange(256, dtype=torch.float32)
    pixels = (levels / 127.5 - 1).expand(1, 3, 2, 256)
    (picture,) = decode_pictures(lambda latents: latents, [pixels])
    assert (picture.size, picture.mode) == ((256, 2), "RGB")
    assert np.array_equal(np.asarray(picture), np.broadcast_to(np.arange(256)[None, :, None], (2, 256, 3)))


def test_channels_and_sides_keep_their_place() -> None:
    pixels = -torch.ones(1, 3, 4, 6)
    pixels[0, 1, 3, 5] = 1.0
    (picture,) = decode_pictures(lambda latents: latents, [pixels])
    assert picture.getpixel((5, 3)) == (0, 255, 0)
    assert picture.getpixel((0, 0)) == (0, 0, 0)


def test_one_at_a_time_in_order_without_gradients() -> None:
    seen = []

    def decode(latents: Tensor) -> Tensor:
        assert not torch.is_grad_enabled()
        seen.append(tuple(latents.shape))
        return latents

    pictures = decode_pictures(decode, [torch.full((1, 3, 2, 2), value) for value in (-1.0, 0.0, 1.0)])
    assert seen == [(1, 3, 2, 2)] * 3
    assert [picture.getpixel((0, 0))[0] for picture in pictures] == [0, 128, 255]


def test_paintings_have_their_own_size_seed_and_condition() -> None:
    paintings = [Painting((4, 2, 6), 5, {"word": torch.tensor([[2.0]])}), Painting((4, 8, 2), 6, {"word": torch.tensor([[3.0]])})]
    reports: list[tuple[str, int, int]] = []
    sizes: list[tuple[int, int, int]] = []

    def list_sigmas(shape: tuple[int, int, int]) -> list[float]:
        sizes.append(shape)
        return [1.0, 0.0]

    latents = predict_paintings(
        lambda noisy, t, condition: condition["word"].item() * torch.ones_like(noisy),
        paintings,
        sigmas=list_sigmas,
        device=CPU,
        progress=lambda what, done, total: reports.append((what, done, total)),
    )
    for painting, one, word in zip(paintings, latents, (2.0, 3.0), strict=True):
        assert torch.allclose(one, draw_start(painting, CPU) - word)
    assert sizes == [(4, 2, 6), (4, 8, 2)]
    assert reports == [("painting", 0, 2), ("painting", 1, 2), ("painting", 2, 2)]


def test_a_saved_picture_is_the_picture(tmp_path: Path) -> None:
    picture = Image.fromarray(np.random.default_rng(0).integers(256, size=(5, 7, 3), dtype=np.uint8))
    path = tmp_path / "deep" / "folder" / "00.png"
    save_picture(picture, path)
    save_picture(picture, path)
    with Image.open(path) as read:
        assert read.format == "PNG"
        assert np.array_equal(np.asarray(read), np.asarray(picture))
    assert [file.name for file in path.parent.iterdir()] == ["00.png"]


class _TornPicture(Image.Image):
    """Fails in the middle of writing, as on a full disk."""

    def save(self, fp: BinaryIO, format: str | None = None, **params: object) -> None:  # noqa: A002
        fp.write(b"half of it")
        raise OSError("no space")


def test_a_torn_write_leaves_the_old_picture(tmp_path: Path) -> None:
    path = tmp_path / "00.png"
    save_picture(Image.new("RGB", (2, 2), "red"), path)
    before = path.read_bytes()
    with pytest.raises(OSError, match="no space"):
        save_picture(_TornPicture(), path)
    assert path.read_bytes() == before
