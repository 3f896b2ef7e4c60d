"""From a prompt to pixels through weber's own sampler: the picture that the library's pipeline paints."""

from __future__ import annotations

from functools import partial
from typing import Any

import numpy as np
import pytest
import torch
from PIL import Image
from torch import Tensor

from weber.families.flux2.components import Flux2
from weber.memory.load import load_predictor
from weber.sampling.euler import Painting, draw_start, predict_latents
from weber.sampling.guidance import build_guided

CPU = torch.device("cpu")
HEIGHT, WIDTH, STEPS, SEED = 64, 96, 5, 7
TOLERANCE = 2e-5
SHAPES = {"text to image": [], "one reference": [(64, 80)], "two references": [(80, 64), (64, 64)]}


def _draw_picture(height: int, width: int) -> Image.Image:
    return Image.fromarray(np.random.default_rng(height + width).integers(0, 256, (height, width, 3), dtype=np.uint8))


def _read_pixels(picture: Image.Image) -> Tensor:
    return torch.from_numpy(np.array(picture)).permute(2, 0, 1)[None].float() / 127.5 - 1


def _paint(family: Flux2, prompt: str, references: list[Image.Image]) -> Tensor:
    """As `training/paint.py` does it: pixels (3, H, W) in -1..1."""
    load = partial(family.load, device=CPU, dtype=torch.float32)
    vae, part = load("vae"), family.text_parts[0]
    encoder = load(part)
    predictor = load_predictor(family, device=CPU, dtype=torch.float32)
    defaults = family.sample_defaults
    with torch.no_grad():
        seen = {f"reference_{number}": family.encode_images(vae, _read_pixels(one))["latents"] for number, one in enumerate(references)}
        if defaults.guidance is not None:
            seen["guidance"] = torch.tensor([defaults.guidance])
        condition, negative = ({**seen, **family.encode_prompts(part, encoder, [text])} for text in (prompt, ""))
        painting = Painting(shape=family.latent_shape(HEIGHT, WIDTH), seed=SEED, condition=condition)
        sigmas = family.sigmas(STEPS, family.num_tokens(*painting.shape[1:]))
        predict = predictor if defaults.cfg == 1 else build_guided(predictor, negative, scale=defaults.cfg)
        return family.decode_latents(vae, predict_latents(predict, draw_start(painting, CPU), sigmas, condition))[0]


def _paint_with_library(pipeline: Any, prompt: str, references: list[Image.Image]) -> Tensor:
    painted = pipeline(
        prompt=prompt,
        image=references or None,
        height=HEIGHT,
        width=WIDTH,
        num_inference_steps=STEPS,
        guidance_scale=4.0,
        generator=torch.Generator().manual_seed(SEED),
        output_type="pt",
    )
    pixels: Tensor = painted.images[0] * 2 - 1
    return pixels


@pytest.mark.parametrize("shape", SHAPES)
@pytest.mark.parametrize("kind", ["dev", "klein", "klein-base"])
def test_our_picture_is_the_librarys(families: dict[str, Flux2], pipelines: dict[str, Any], kind: str, shape: str) -> None:
    references = [_draw_picture(*size) for size in SHAPES[shape]]
    ours = _paint(families[kind], "red apple", references)
    expected = _paint_with_library(pipelines[kind], "red apple", references)
    assert ours.shape == (3, HEIGHT, WIDTH)
    assert ours.std() > 0.05
    assert (ours - expected).abs().max() < TOLERANCE


@pytest.mark.parametrize("kind", ["dev", "klein", "klein-base"])
def test_the_comparison_would_see_another_prompt(pipelines: dict[str, Any], kind: str) -> None:
    first, second = (_paint_with_library(pipelines[kind], prompt, []) for prompt in ("red apple", "blue house"))
    assert (first - second).abs().max() > 10 * TOLERANCE
