"""Masks for the loss in the cache: once each, under a key of all that they depend on, and a changed file is noticed."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import pytest
import torch
from PIL import Image

from weber.cache.key import build_mask_key
from weber.cache.masks import encode_loss_masks, find_shape
from weber.cache.store import Store
from weber.config.model import ModelConfig
from weber.data.crops import Crop
from weber.data.images import encode_content
from weber.data.loss_masks import LossMask, LossWindow
from weber.errors import DataError
from weber.families.family import Family
from weber.families.table import build_family


@pytest.fixture
def family() -> Family:
    return build_family(ModelConfig(variant="pocket"))


def _write(path: Path, edge: int) -> LossMask:
    mask = Image.new("L", (64, 64))
    mask.paste(255, (0, 0, edge, 64))
    mask.save(path)
    return LossMask(path, encode_content(path.read_bytes()))


def test_what_is_lacking_is_read_once(tmp_path: Path, family: Family) -> None:
    masks = [_write(tmp_path / f"{edge}.png", edge) for edge in range(8, 64, 8)]
    crops = [Crop(64, 64, 0, 0, 64, 64), Crop(96, 64, 32, 0, 64, 64)]
    windows = [LossWindow(mask, crop) for mask in masks for crop in crops]
    store, reports = Store(tmp_path / "cache"), []
    assert encode_loss_masks(store, windows[:3], family=family) == 3
    count = encode_loss_masks(store, [*windows, *windows], family=family, progress=lambda what, done, total: reports.append((done, total)))
    assert count == len(windows) - 3 and reports[0] == (0, count) and reports[-1] == (count, count)
    assert encode_loss_masks(store, windows, family=family) == 0
    for number, window in enumerate(windows[::2], start=1):
        mask = Store(store.folder).read(build_mask_key(window, shape=find_shape(window, family)))["loss_mask"]
        assert mask.shape == (1, 8, 8) and mask.dtype == torch.float32
        assert torch.equal(mask, (torch.arange(8) < number).float().expand(1, 8, 8))


def test_every_part_of_a_window_and_the_size_are_in_the_key(tmp_path: Path) -> None:
    window = LossWindow(LossMask(tmp_path / "a.png", "a"), Crop(64, 64, 0, 0, 64, 64))
    keys = {
        build_mask_key(window, shape=(8, 8)),
        build_mask_key(window, shape=(8, 4)),
        build_mask_key(window, shape=(4, 8)),
        build_mask_key(replace(window, crop=Crop(65, 64, 0, 0, 64, 64)), shape=(8, 8)),
        build_mask_key(replace(window, mask=LossMask(tmp_path / "a.png", "b")), shape=(8, 8)),
        build_mask_key(replace(window, mask=LossMask(tmp_path / "a.png", "a", is_alpha=True)), shape=(8, 8)),
    }
    assert len(keys) == 6
    assert build_mask_key(replace(window, mask=LossMask(tmp_path / "b.png", "a")), shape=(8, 8)) in keys


def test_a_mask_that_was_changed_meanwhile_is_named(tmp_path: Path, family: Family) -> None:
    mask = _write(tmp_path / "a.png", 8)
    _write(tmp_path / "a.png", 16)
    with pytest.raises(DataError, match="a.png"):
        encode_loss_masks(Store(tmp_path / "cache"), [LossWindow(mask, Crop(64, 64, 0, 0, 64, 64))], family=family)
