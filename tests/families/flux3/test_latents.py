"""Latents, tokens, positions and pixels are those of the library's modular pipeline."""

from __future__ import annotations

import pytest
import torch
from diffusers import Flux3ModularPipeline
from diffusers.modular_pipelines.flux3.before_denoise import Flux3TextRoPEInputsStep, _prepare_image_ids
from diffusers.modular_pipelines.flux3.decoders import Flux3DecodeStep, Flux3UnpackLatentsStep
from diffusers.modular_pipelines.flux3.encoders import Flux3VaeEncoderStep
from diffusers.modular_pipelines.flux3.image_processor import Flux3ImageProcessor
from hypothesis import given
from hypothesis import strategies as st
from PIL import Image

from weber.families.flux3.components import Flux3
from weber.families.flux3.positions import build_image_ids, build_text_ids
from weber.families.patches import build_reference_size, pack, unpack

CPU = torch.device("cpu")


@given(batch=st.integers(1, 3), channels=st.integers(1, 16), height=st.integers(1, 9), width=st.integers(1, 9))
def test_packing_and_its_inverse(batch: int, channels: int, height: int, width: int) -> None:
    latents = torch.arange(batch * channels * height * width, dtype=torch.float32).view(batch, channels, height, width)
    tokens = pack(latents)
    assert tokens.shape == (batch, height * width, channels)
    assert torch.equal(tokens[:, width - 1], latents[:, :, 0, width - 1])
    assert torch.equal(tokens[:, -width], latents[:, :, -1, 0])
    assert torch.equal(unpack(tokens, height, width), latents)


def test_unpacking_equals_the_pipeline(pipeline: Flux3ModularPipeline) -> None:
    tokens = torch.randn(2, 6 * 4, 128)
    state = Flux3UnpackLatentsStep().init_pipeline()
    theirs = state(latents=tokens, height=96, width=64, output="latents")
    assert torch.equal(unpack(tokens, 6, 4), theirs)


@pytest.mark.parametrize(("height", "width", "layer"), [(2, 2, 0), (4, 14, -1), (64, 48, -2)])
def test_positions_equal_the_pipeline(height: int, width: int, layer: int) -> None:
    ids = build_image_ids(torch.zeros(1, 128, height, width), layer)
    assert torch.equal(ids, _prepare_image_ids(height, width, 0.5, l_coord=layer))
    assert torch.equal(build_text_ids(80, CPU), Flux3TextRoPEInputsStep._prepare_text_ids(torch.zeros(1, 80, 1)))


@pytest.mark.parametrize(("height", "width"), [(64, 64), (32, 96)])
def test_encoding_equals_the_pipeline(family: Flux3, pipeline: Flux3ModularPipeline, height: int, width: int) -> None:
    pixels = torch.rand(2, 3, height, width, generator=torch.Generator().manual_seed(5)) * 2 - 1
    step = Flux3VaeEncoderStep().init_pipeline()
    step.update_components(vae=pipeline.vae)
    theirs = step(condition_images=[pixels], output="image_cond_latents")[0]
    with torch.no_grad():
        ours = family.encode_images(family.load("vae", device=CPU, dtype=torch.float32), pixels)
    assert list(ours) == ["latents"]
    assert ours["latents"].shape == (2, *family.latent_shape(height, width))
    assert torch.equal(ours["latents"], theirs)
    assert 0.3 < ours["latents"].std() < 3


def test_decoding_equals_the_pipeline(family: Flux3, pipeline: Flux3ModularPipeline) -> None:
    latents = 3 * torch.randn(1, 128, 3, 4, generator=torch.Generator().manual_seed(5))
    step = Flux3DecodeStep().init_pipeline()
    step.update_components(vae=pipeline.vae)
    theirs = step(latents=latents, output_type="pt", output="images")
    with torch.no_grad():
        ours = family.decode_latents(family.load("vae", device=CPU, dtype=torch.float32), latents)
    assert ours.shape == (1, 3, 48, 64)
    assert torch.equal(ours / 2 + 0.5, theirs)


def test_a_bf16_encoder_takes_fp32_pixels_and_decodes_to_fp32(family: Flux3) -> None:
    vae = family.load("vae", device=CPU, dtype=torch.bfloat16)
    with torch.no_grad():
        latents = family.encode_images(vae, torch.zeros(1, 3, 32, 32))["latents"]
        assert latents.dtype == torch.bfloat16
        assert family.decode_latents(vae, latents.float()).dtype == torch.float32


@pytest.mark.parametrize("size", [(1024, 1024), (1000, 700), (1300, 1300), (4000, 3000), (3333, 500), (16, 16), (100, 40)])
def test_references_have_the_size_that_the_pipeline_gives_each_of_several(size: tuple[int, int]) -> None:
    pixels, _ = Flux3ImageProcessor().preprocess(Image.new("RGB", size), resize_mode="crop")
    assert build_reference_size(*size) == (pixels.shape[-1], pixels.shape[-2])


@given(width=st.integers(1, 9000), height=st.integers(1, 9000))
def test_references_fit_a_megapixel_and_the_grid(width: int, height: int) -> None:
    new_width, new_height = build_reference_size(width, height)
    assert new_width % 16 == new_height % 16 == 0
    assert min(new_width, new_height) >= 16
    assert new_width * new_height <= max(1024 * 1024, 16 * max(new_width, new_height))
