"""Pixels, latents, tokens and positions of FLUX.2 are those of the library's pipelines."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
import torch
from diffusers import Flux2Pipeline
from diffusers.image_processor import VaeImageProcessor
from diffusers.pipelines.flux2.image_processor import Flux2ImageProcessor
from hypothesis import given
from hypothesis import strategies as st
from PIL import Image

from weber.families.flux2.components import Flux2
from weber.families.flux2.positions import build_ids
from weber.families.patches import build_latent_shape, build_reference_size, pack, unpack

CPU = torch.device("cpu")
SIZES = [(64, 64), (48, 80), (16, 160)]


def _draw_pixels(height: int, width: int) -> torch.Tensor:
    return torch.rand(2, 3, height, width, generator=torch.Generator().manual_seed(height)) * 2 - 1


def _load_vae(family: Flux2) -> Any:
    return family.load("vae", device=CPU, dtype=torch.float32)


@pytest.mark.parametrize(("height", "width"), SIZES)
def test_encode_as_the_pipeline(families: dict[str, Flux2], pipelines: dict[str, Any], height: int, width: int) -> None:
    family, pixels = families["dev"], _draw_pixels(height, width)
    with torch.no_grad():
        latents = family.encode_images(_load_vae(family), pixels)["latents"]
        expected = pipelines["dev"]._encode_vae_image(pixels, generator=None)
    assert latents.shape == (2, *family.latent_shape(height, width)) == (2, 128, height // 16, width // 16)
    assert torch.equal(latents, expected)
    assert 0.5 < latents.std() < 2


@pytest.mark.parametrize(("height", "width"), SIZES)
def test_decode_as_the_pipeline(families: dict[str, Flux2], pipelines: dict[str, Any], height: int, width: int) -> None:
    """The end of the pipeline's own call, which is no function of its own."""
    family, pipeline = families["klein"], pipelines["klein"]
    latents = torch.randn(2, *family.latent_shape(height, width), generator=torch.Generator().manual_seed(1))
    statistics = pipeline.vae.bn
    std = torch.sqrt(statistics.running_var.view(1, -1, 1, 1) + pipeline.vae.config.batch_norm_eps)
    with torch.no_grad():
        pixels = family.decode_latents(_load_vae(family), latents)
        restored = pipeline._unpatchify_latents(latents * std + statistics.running_mean.view(1, -1, 1, 1))
        expected = pipeline.vae.decode(restored, return_dict=False)[0]
    assert pixels.shape == (2, 3, height, width)
    assert torch.equal(pixels, expected.clamp(-1, 1))


def test_tokens_are_places(families: dict[str, Flux2]) -> None:
    latents = torch.randn(2, 128, 3, 5)
    tokens = pack(latents)
    assert torch.equal(tokens, Flux2Pipeline._pack_latents(latents))
    assert tokens.shape[1] == families["dev"].num_tokens(3, 5) == 15
    assert torch.equal(tokens[:, 7], latents[:, :, 1, 2])
    assert torch.equal(unpack(tokens, 3, 5), latents)


@pytest.mark.parametrize("references", [[], [(4, 4)], [(2, 6), (5, 3)]])
def test_positions_as_the_pipeline(references: list[tuple[int, int]]) -> None:
    text = Flux2Pipeline._prepare_text_ids(torch.zeros(1, 7, 4))[0]
    expected = [text, Flux2Pipeline._prepare_latent_ids(torch.zeros(1, 128, 3, 5))[0]]
    if references:
        expected.append(Flux2Pipeline._prepare_image_ids([torch.zeros(1, 128, *size) for size in references])[0])
    ids = build_ids(7, [(3, 5), *references], CPU)
    assert torch.equal(ids, torch.cat(expected).float())
    assert set(ids[7 + 15 :, 0].tolist()) == {10.0 * (number + 1) for number in range(len(references))}


@given(width=st.integers(64, 4000), height=st.integers(64, 4000))
def test_reference_size_as_the_pipeline(width: int, height: int) -> None:
    """As in `Flux2Pipeline.__call__`; the picture is one row of pixels of a size that only says what it is."""
    picture = Image.new("1", (width, height))
    if width * height > 1024 * 1024:
        picture = Flux2ImageProcessor._resize_to_target_area(picture, 1024 * 1024)
    size = build_reference_size(width, height)
    assert size == (picture.width // 16 * 16, picture.height // 16 * 16)
    assert size[0] * size[1] <= 1024 * 1024


def test_a_reference_of_few_pixels_has_at_least_one_token() -> None:
    assert build_reference_size(7, 40) == (16, 32)
    assert build_latent_shape(32, 16) == (128, 2, 1)


def test_a_reference_picture_is_encoded_as_in_the_pipeline(families: dict[str, Flux2], pipelines: dict[str, Any]) -> None:
    """From the picture's pixels, not from a tensor: the scale of the pixels too is the pipeline's."""
    draw = np.random.default_rng(0)
    picture = Image.fromarray(draw.integers(0, 256, (64, 96, 3), dtype=np.uint8))
    pipeline, family = pipelines["dev"], families["dev"]
    expected_pixels = pipeline.image_processor.preprocess(picture, height=64, width=96, resize_mode="crop")
    pixels = VaeImageProcessor.numpy_to_pt(np.asarray(picture)[None] / np.float32(255)) * 2 - 1
    with torch.no_grad():
        latents = family.encode_images(_load_vae(family), pixels)["latents"]
        expected, _ = pipeline.prepare_image_latents([expected_pixels], 1, None, CPU, torch.float32)
    assert torch.equal(pack(latents), expected)
