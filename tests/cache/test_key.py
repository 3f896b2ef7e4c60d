"""The format of keys is frozen: a change makes every cache on disk useless and must be meant."""

from __future__ import annotations

import itertools
from pathlib import Path

import torch

from weber.cache.key import KEY_VERSION, build_key, build_latent_key, build_text_key
from weber.data.buckets import Bucket
from weber.data.crops import Crop
from weber.data.examples import Example

CROP = Crop(80, 64, 8, 0, 64, 64)


def _example(content: str = "0123", path: str = "a.png") -> Example:
    return Example("set", Path(path), content, 100, 80, Bucket(64, 64), (CROP,), ("a fox",), 1)


def test_format_is_frozen() -> None:
    assert KEY_VERSION == 1
    assert build_key(content="c", preparation="p", encoder="e", dtype="bfloat16") == "3041a4812b61302d190a0ae57e1d8913"
    assert build_text_key("ein Füchslein", encoder="t5", dtype=torch.bfloat16) == "aee0272759b7bd0cecd3b77da9e41737"
    described = build_key(content="0123", preparation=CROP.describe(), encoder="vae", dtype="float32")
    assert build_latent_key(_example(), CROP, encoder="vae", dtype=torch.float32) == described


def test_every_fact_counts_and_borders_between_facts_too() -> None:
    facts = ["", "a", "b", "ab", '"', '","']
    keys = {
        build_key(content=content, preparation=preparation, encoder=encoder, dtype=dtype)
        for content, preparation, encoder, dtype in itertools.product(facts, repeat=4)
    }
    assert len(keys) == len(facts) ** 4


def test_latent_key_knows_content_and_crop_but_not_the_path() -> None:
    key = build_latent_key(_example(), CROP, encoder="vae", dtype=torch.float32)
    assert build_latent_key(_example(path="b.png"), CROP, encoder="vae", dtype=torch.float32) == key
    others = {
        build_latent_key(_example(content="0124"), CROP, encoder="vae", dtype=torch.float32),
        build_latent_key(_example(), Crop(80, 64, 9, 0, 64, 64), encoder="vae", dtype=torch.float32),
        build_latent_key(_example(), CROP, encoder="vae 2", dtype=torch.float32),
        build_latent_key(_example(), CROP, encoder="vae", dtype=torch.bfloat16),
    }
    assert len(others | {key}) == 5
