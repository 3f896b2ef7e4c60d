"""Latents, tokens and pixels are the library's own: encoding, decoding, masks, packing and positions."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch
from diffusers import AutoencoderKL, FluxFillPipeline, FluxKontextPipeline, FluxPipeline
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
    ids = build_ids(7, [(height, width)])
    assert torch.equal(ids[:7], torch.zeros(7, 3))
    assert torch.equal(ids[7:], FluxPipeline._prepare_latent_image_ids(1, height // 2, width // 2, CPU, torch.float32))


@pytest.mark.parametrize("reference", [(8, 4), (4, 14), (128, 96)])
def test_positions_of_one_reference_equal_the_pipeline(kontext: Flux1, reference: tuple[int, int]) -> None:
    vae = kontext.load("vae", device=CPU, dtype=torch.float32)
    pipeline = FluxKontextPipeline(None, vae, None, None, None, None, None)
    prepared = pipeline.prepare_latents(torch.zeros(1, 16, *reference), 1, 16, 8 * 8, 8 * 12, torch.float32, CPU)
    assert torch.equal(build_ids(5, [(8, 12), reference]), torch.cat([torch.zeros(5, 3), *prepared[2:]]))


@pytest.mark.parametrize(
    ("references", "corners"),
    [
        ([(4, 4), (4, 4), (4, 4)], [(0, 0), (2, 0), (0, 2)]),  # a square, one below it, one beside both
        ([(2, 12), (2, 12)], [(0, 0), (1, 0)]),  # wide ones lie below each other
        ([(12, 2), (12, 2)], [(0, 0), (0, 1)]),  # tall ones stand beside each other
        ([(8, 4), (4, 8), (2, 2)], [(0, 0), (4, 0), (0, 4)]),
    ],
)
def test_several_references_are_packed(references: list[tuple[int, int]], corners: list[tuple[int, int]]) -> None:
    ids = build_ids(0, [(6, 6), *references])
    assert (ids[:9, 0] == 0).all() and (ids[9:, 0] == 1).all()
    pieces = ids[9:].split([height * width // 4 for height, width in references])
    for piece, (height, width), corner in zip(pieces, references, corners, strict=True):
        assert tuple(piece.amin(dim=0)[1:].tolist()) == corner
        assert torch.equal(piece - piece[0], build_ids(0, [(height, width)]))


@given(st.lists(st.tuples(st.integers(1, 12), st.integers(1, 12)), min_size=1, max_size=8))
def test_no_two_tokens_have_one_position(sizes: list[tuple[int, int]]) -> None:
    ids = build_ids(0, [(2 * height, 2 * width) for height, width in sizes])
    assert len(ids) == sum(height * width for height, width in sizes)
    assert len(ids.unique(dim=0)) == len(ids)


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


@pytest.mark.parametrize(("height", "width"), [(64, 64), (32, 96)])
def test_masks_equal_the_pipeline(fill: Flux1, height: int, width: int) -> None:
    draw = torch.Generator().manual_seed(5)
    pixels, soft = torch.rand(2, 3, height, width, generator=draw) * 2 - 1, torch.rand(2, 1, height, width, generator=draw)
    vae = fill.load("vae", device=CPU, dtype=torch.float32)
    pipeline = FluxFillPipeline(None, vae, None, None, None, None, None)
    with torch.no_grad():
        ours = fill.encode_images(vae, pixels, masks=soft)
        masks = pipeline.mask_processor.preprocess(soft, height=height, width=width)
        latents = vae.encode(pixels * (1 - masks)).latent_dist.mode()
        mask, masked = pipeline.prepare_mask_latents(masks, latents, 2, 16, 1, height, width, torch.float32, CPU, None)
    assert {name: tensor.shape[1:] for name, tensor in ours.items()} == {
        "masked": (16, height // 8, width // 8),
        "mask": (64, height // 8, width // 8),
    }
    assert torch.equal(pack(ours["masked"]), masked)
    assert torch.equal(pack(ours["mask"]), mask)
    assert ours["mask"].unique().tolist() == [0.0, 1.0]


def test_a_mask_hides_what_it_covers(fill: Flux1) -> None:
    vae = fill.load("vae", device=CPU, dtype=torch.bfloat16)
    pixels = torch.rand(1, 3, 32, 32, generator=torch.Generator().manual_seed(5)) * 2 - 1
    with torch.no_grad():
        hidden = fill.encode_images(vae, pixels, masks=torch.ones(1, 1, 32, 32))
        seen = fill.encode_images(vae, pixels, masks=torch.zeros(1, 1, 32, 32))
        assert torch.equal(hidden["masked"], fill.encode_images(vae, torch.zeros(1, 3, 32, 32))["latents"])
        assert torch.equal(seen["masked"], fill.encode_images(vae, pixels)["latents"])
    assert (hidden["mask"] == 1).all() and (seen["mask"] == 0).all()
    assert hidden["mask"].dtype == hidden["masked"].dtype == torch.bfloat16


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
