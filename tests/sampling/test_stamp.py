"""What a picture's file says of it."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from tests.comfyui import check_prompt, check_workflow
from weber.config.model import ModelConfig
from weber.families.flux1.components import Flux1
from weber.families.graphs import Added, Given, Painted
from weber.families.table import build_family
from weber.sampling.stamp import KEYS, build_texts
from weber.sampling.validate import save_picture


@pytest.fixture
def family() -> Flux1:
    family = build_family(ModelConfig(variant="pocket"))
    assert isinstance(family, Flux1)
    return family


def _paint(prompt: str) -> Painted:
    return Painted(
        variant="pocket",
        prompt=prompt,
        seed=7,
        steps=4,
        width=64,
        height=48,
        guidance=2.0,
        cfg=3.0,
        negative="blur\0ry",
        step=20,
        adapter=Added("style.safetensors", 0.5),
        references=(Given("a.png", (64, 64)),),
    )


@pytest.mark.parametrize("prompt", ["a (red) cat, \"1\" {a|b}", "雪の中の猫 🐈", "zwei\nZeilen: über"])
def test_a_file_carries_what_made_it_and_the_same_pixels(tmp_path: Path, family: Flux1, prompt: str) -> None:
    picture = Image.fromarray(np.random.default_rng(0).integers(256, size=(5, 7, 3), dtype=np.uint8))
    picture.info |= build_texts(_paint(prompt), family) | {"note": "none of ours"}
    save_picture(picture, tmp_path / "a.png")
    save_picture(picture, tmp_path / "b.png")
    assert (tmp_path / "a.png").read_bytes() == (tmp_path / "b.png").read_bytes()
    with Image.open(tmp_path / "a.png") as read:
        assert np.array_equal(np.asarray(read), np.asarray(picture))
        texts = dict(read.text)  # type: ignore[attr-defined]
    assert set(texts) == set(KEYS)
    ours = json.loads(texts["weber"])
    assert ours["prompt"] == prompt and ours["size"] == [64, 48] and ours["seed"] == 7 and ours["steps"] == 4 and ours["step"] == 20
    assert ours["adapter"]["file"] == "style.safetensors" and ours["adapter"]["strength"] == 0.5 and ours["variant"] == "pocket"
    check_prompt(json.loads(texts["prompt"]))
    check_workflow(json.loads(texts["workflow"]), json.loads(texts["prompt"]))
    first, negative, settings = texts["parameters"].rsplit("\n", 2)
    assert first == f"{prompt} <lora:style:0.5>" and negative == "Negative prompt: blur ry"
    said = "Steps: 4, Sampler: Euler, Schedule type: Simple, CFG scale: 3, Distilled CFG Scale: 2, Seed: 7, Size: 64x48, Model: pocket, "
    assert settings.startswith(said)


def test_a_picture_without_texts_has_none(tmp_path: Path) -> None:
    save_picture(Image.new("RGB", (2, 2)), tmp_path / "a.png")
    with Image.open(tmp_path / "a.png") as read:
        assert not read.info
