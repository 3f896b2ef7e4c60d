"""The format of keys is frozen: a change makes every cache on disk useless and must be meant."""

from __future__ import annotations

import itertools
from pathlib import Path

import torch

from weber.cache.key import KEY_VERSION, build_key, build_latent_key, build_text_key
from weber.data.crops import Crop
from weber.data.masks import Mask
from weber.data.views import View

CROP = Crop(80, 64, 8, 0, 64, 64)


def _view(content: str = "0123", path: str = "a.png", crop: Crop = CROP, mask: Mask | None = None) -> View:
    return View(Path(path), content, crop, mask)


def test_format_is_frozen() -> None:
    assert KEY_VERSION == 1
    assert build_key(content="c", preparation="p", encoder="e", dtype="bfloat16") == "3041a4812b61302d190a0ae57e1d8913"
    assert build_text_key("ein Füchslein", encoder="t5", dtype=torch.bfloat16) == "aee0272759b7bd0cecd3b77da9e41737"
    described = build_key(content="0123", preparation=CROP.describe(), encoder="vae", dtype="float32")
    assert build_latent_key(_view(), encoder="vae", dtype=torch.float32) == described


def test_every_fact_counts_and_borders_between_facts_too() -> None:
    facts = ["", "a", "b", "ab", '"', '","']
    keys = {
        build_key(content=content, preparation=preparation, encoder=encoder, dtype=dtype)
        for content, preparation, encoder, dtype in itertools.product(facts, repeat=4)
    }
    assert len(keys) == len(facts) ** 4


def test_latent_key_knows_content_and_crop_but_not_the_path() -> None:
    key = build_latent_key(_view(), encoder="vae", dtype=torch.float32)
    assert build_latent_key(_view(path="b.png"), encoder="vae", dtype=torch.float32) == key
    others = {
        build_latent_key(_view(content="0124"), encoder="vae", dtype=torch.float32),
        build_latent_key(_view(crop=Crop(80, 64, 9, 0, 64, 64)), encoder="vae", dtype=torch.float32),
        build_latent_key(_view(), encoder="vae 2", dtype=torch.float32),
        build_latent_key(_view(), encoder="vae", dtype=torch.bfloat16),
    }
    assert len(others | {key}) == 5


def test_latent_key_knows_the_mask_but_not_its_path() -> None:
    def build(path: str | None, content: str) -> str:
        return build_latent_key(_view(mask=Mask(None if path is None else Path(path), content)), encoder="vae", dtype=torch.float32)

    plain = build_latent_key(_view(), encoder="vae", dtype=torch.float32)
    assert build("a.png", "4567") == build("b.png", "4567") == "c158542d1dbbe7f9470e7c94df8ee725"
    assert build(None, "0 0123 1") == "9b5c24f9b105ec2660f9df7eeacd6d86"
    assert len({plain, build("a.png", "4567"), build("a.png", "4568"), build(None, "4567"), build(None, "4568")}) == 5
