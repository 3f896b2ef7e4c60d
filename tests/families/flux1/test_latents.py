"""Latents, tokens and pixels are the library's own: encoding, decoding, packing and positions."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch
from diffusers import AutoencoderKL, FluxPipeline
from hypothesis import given
from hypothesis import strategies as st

from weber.families.flux1.components import Flux1
from weber.families.flux1.latents import build_ids, pack, unpack

CPU = torch.device("cpu")


@given(batch=st.integers(1, 3), channels=st.integers(1, 16), rows=st.integers(1, 9), columns=st.integers(1, 9))
def test_packing_equals_the_pipeline(batch: int, channels: int, rows: int, columns: int) -> None:
    height, width = 2 * rows, 2 * columns
    latents = torch.arange(batch * channels * height * width, dtype=torch.float32).view(batch, channels, height, width)
    tokens = pack(latents)
    assert tokens.shape == (batch, rows * columns, 4 * channels)
    assert torch.equal(tokens, FluxPipeline._pack_latents(latents, batch, channels, height, width))
    assert torch.equal(unpack(tokens, height, width), latents)
    assert torch.equal(unpack(tokens, height, width), FluxPipeline._unpack_latents(tokens, 8 * height, 8 * width, 8))


@pytest.mark.parametrize(("height", "width"), [(2, 2), (4, 14), (128, 96)])
def test_positions_equal_the_pipeline(height: int, width: int) -> None:
    ids = build_ids(7, height, width, CPU)
    assert torch.equal(ids[:7], torch.zeros(7, 3))
    assert torch.equal(ids[7:], FluxPipeline._prepare_latent_image_ids(1, height // 2, width // 2, CPU, torch.float32))


@pytest.mark.parametrize(("height", "width"), [(64, 64), (32, 96)])
def test_encoding_equals_the_library(dev: Flux1, tiny_model: Path, height: int, width: int) -> None:
    pixels = torch.rand(2, 3, height, width, generator=torch.Generator().manual_seed(5)) * 2 - 1
    vae = AutoencoderKL.from_pretrained(tiny_model / "vae").requires_grad_(False)  # other kernels run where gradients may be asked for
    with torch.no_grad():
        ours = dev.encode_images(dev.load("vae", device=CPU, dtype=torch.float32), pixels)
        theirs = (vae.encode(pixels).latent_dist.mode() - vae.config.shift_factor) * vae.config.scaling_factor
    assert list(ours) == ["latents"]
    assert ours["latents"].shape == (2, *dev.latent_shape(height, width))
    assert torch.equal(ours["latents"], theirs)
    assert (vae.config.shift_factor, vae.config.scaling_factor) == (0.1159, 0.3611)


def test_decoding_equals_the_library(dev: Flux1, tiny_model: Path) -> None:
    latents = 3 * torch.randn(1, 16, 6, 8, generator=torch.Generator().manual_seed(5))
    vae = AutoencoderKL.from_pretrained(tiny_model / "vae").requires_grad_(False)  # other kernels run where gradients may be asked for
    with torch.no_grad():
        ours = dev.decode_latents(dev.load("vae", device=CPU, dtype=torch.float32), latents)
        theirs = vae.decode(latents / vae.config.scaling_factor + vae.config.shift_factor, return_dict=False)[0]
    assert ours.shape == (1, 3, 48, 64)
    assert torch.equal(ours, theirs.clamp(-1, 1))


def test_a_bf16_encoder_takes_fp32_pixels_and_decodes_to_fp32(dev: Flux1) -> None:
    vae = dev.load("vae", device=CPU, dtype=torch.bfloat16)
    with torch.no_grad():
        latents = dev.encode_images(vae, torch.zeros(1, 3, 32, 32))["latents"]
        assert latents.dtype == torch.bfloat16
        assert dev.decode_latents(vae, latents.float()).dtype == torch.float32
