"""The pocket model as it ships: small, complete, opened by the library, and painting what it is asked for."""

from __future__ import annotations

import json
import math
import re
from pathlib import Path

import numpy as np
import pytest
import torch
from diffusers import FluxPipeline
from safetensors import safe_open

from recipes.pocket.judge import JUDGED_STYLES, build_views, load_judge
from recipes.pocket.sheet import paint_prompts
from weber.families.flux1.variants import POCKET

ROOT = Path(__file__).parents[2]
SUBJECTS = ("red apple", "dog face", "rocket", "sunflower", "soccer ball", "grinning face", "house", "light bulb")


@pytest.fixture(scope="module")
def painted() -> dict[str, torch.Tensor]:
    """Every subject in both styles of the base, by weber's own sampler, from different noise."""
    return {
        style: build_views(paint_prompts(POCKET, [f"{subject}, {style} style" for subject in SUBJECTS], first_seed=seed))
        for style, seed in (("noto", 0), ("twemoji", 100))
    }


def test_it_is_small_and_in_bf16() -> None:
    assert sum(file.stat().st_size for file in POCKET.rglob("*") if file.is_file()) <= 25e6
    for weights in POCKET.rglob("*.safetensors"):
        with safe_open(weights, framework="pt") as file:
            assert {file.get_slice(name).get_dtype() for name in file.keys()} == {"BF16"}  # noqa: SIM118


def test_every_page_says_how_large_it_is() -> None:
    numbers: dict[str, int] = {}
    for weights in POCKET.rglob("*.safetensors"):
        with safe_open(weights, framework="pt") as file:
            shapes = [file.get_slice(name).get_shape() for name in file.keys()]  # noqa: SIM118
            numbers[weights.parent.name] = sum(math.prod(shape) for shape in shapes)
    assert round(numbers["transformer"] / 1e6, 1) == 6.4
    assert round(sum(numbers.values()) / 1e6, 1) == 11.1
    for page in (POCKET / "README.md", ROOT / "README.md", ROOT / "docs" / "pocket.md"):
        text = " ".join(page.read_text(encoding="utf-8").split())
        assert re.findall(r"([\d.]+) million parameters", text) == ["6.4"], page
        assert "(11.1 million with its autoencoder and text encoders)" in text, page


def test_its_licenses_are_beside_it() -> None:
    text = (POCKET / "README.md").read_text(encoding="utf-8")
    for word in ("Noto Color Emoji", "Twemoji", "CC BY 4.0", "emojibase"):
        assert word in text
    for name in ("noto-emoji.txt", "emojibase.txt", "twemoji-svg-package.txt"):
        assert (POCKET / "licenses" / name).stat().st_size > 500


def test_the_library_opens_it_with_the_ordinary_classes() -> None:
    pipeline = FluxPipeline.from_pretrained(POCKET)
    classes = {name: type(part).__name__ for name, part in pipeline.components.items() if part is not None}
    assert classes == {
        "transformer": "FluxTransformer2DModel",
        "vae": "AutoencoderKL",
        "text_encoder": "CLIPTextModel",
        "text_encoder_2": "T5EncoderModel",
        "tokenizer": "CLIPTokenizer",
        "tokenizer_2": "T5Tokenizer",
        "scheduler": "FlowMatchEulerDiscreteScheduler",
    }
    assert (pipeline.transformer.config.in_channels, pipeline.transformer.config.guidance_embeds) == (64, True)
    assert (pipeline.vae.config.latent_channels, pipeline.vae_scale_factor) == (16, 8)
    assert sum(parameter.numel() for parameter in pipeline.transformer.parameters()) == 6_355_136


def test_its_configuration_names_no_folder_of_the_machine_it_was_made_on() -> None:
    for file in POCKET.rglob("*.json"):
        if file.name != "tokenizer.json":
            assert "_name_or_path" not in json.loads(file.read_text(encoding="utf-8")), file


def test_it_paints_what_it_is_asked_for(painted: dict[str, torch.Tensor]) -> None:
    judge = load_judge()
    noto, twemoji = (judge(painted[style])[1] for style in ("noto", "twemoji"))
    nearest = (noto @ twemoji.T).argmax(dim=1)
    assert (nearest == torch.arange(len(SUBJECTS))).sum() >= len(SUBJECTS) - 1, "the same subject in the other style is the nearest"


def test_it_paints_in_the_style_it_is_asked_for(painted: dict[str, torch.Tensor]) -> None:
    judge = load_judge()
    right = [(judge(painted[style])[0].argmax(dim=1) == JUDGED_STYLES.index(style)).float().mean().item() for style in painted]
    assert min(right) >= 0.75


def test_the_empty_caption_and_unknown_words_paint_too() -> None:
    for picture in paint_prompts(POCKET, ["", "qwyx zzk 123 Ünïcode 😀"]):
        pixels = np.asarray(picture, dtype=float)
        steps = np.abs(np.diff(pixels, axis=0)).mean()
        assert pixels.std() > 5 and steps < 0.3 * pixels.std() + 10, "something, and no noise"
