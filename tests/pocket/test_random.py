"""The random model is a real FLUX.1: the library opens it and paints; the same seed gives the same bytes."""

from __future__ import annotations

import random
from dataclasses import replace
from pathlib import Path
from typing import Literal

import numpy as np
import pytest
import torch
from diffusers import DiffusionPipeline, FluxFillPipeline, FluxKontextPipeline, FluxPipeline

from weber.pocket.networks import TINY
from weber.pocket.random import build_random_model

PROMPTS = ["red apple, 3d fluent style", "a zebra I never saw: Ünïcode 😀"]


def _read_files(folder: Path) -> dict[str, bytes]:
    return {file.relative_to(folder).as_posix(): file.read_bytes() for file in folder.rglob("*") if file.is_file()}


def _load(folder: Path) -> FluxPipeline:
    pipeline = FluxPipeline.from_pretrained(folder)
    pipeline.set_progress_bar_config(disable=True)
    return pipeline


def _paint(pipeline: FluxPipeline) -> np.ndarray:
    generator = torch.Generator().manual_seed(3)
    size = {"height": 32, "width": 48, "num_inference_steps": 2, "max_sequence_length": 16}
    return np.asarray(pipeline(PROMPTS, output_type="np", generator=generator, **size).images)


@pytest.mark.parametrize("variant", ["dev", "schnell"])
def test_the_library_opens_it_and_paints(variant: Literal["dev", "schnell"], tmp_path: Path) -> None:
    pipeline = _load(build_random_model(tmp_path / "model", variant=variant))
    assert pipeline.transformer.config.guidance_embeds == (variant == "dev")
    assert pipeline.scheduler.config.use_dynamic_shifting == (variant == "dev")
    pixels = _paint(pipeline)
    assert pixels.shape == (2, 32, 48, 3)
    assert np.isfinite(pixels).all()
    assert pixels.std() > 0.05
    assert np.abs(pixels[0] - pixels[1]).mean() > 0.01


@pytest.mark.parametrize(("variant", "kind", "in_channels"), [("kontext", FluxKontextPipeline, 64), ("fill", FluxFillPipeline, 384)])
def test_the_folder_names_its_own_pipeline(variant: Literal["kontext", "fill"], kind: type, in_channels: int, tmp_path: Path) -> None:
    pipeline = DiffusionPipeline.from_pretrained(build_random_model(tmp_path / "model", variant=variant))
    assert type(pipeline) is kind
    assert (pipeline.transformer.config.in_channels, pipeline.transformer.out_channels) == (in_channels, 64)
    assert pipeline.transformer.config.guidance_embeds and pipeline.scheduler.config.use_dynamic_shifting


def test_same_seed_same_bytes_and_another_seed_other_weights(tmp_path: Path) -> None:
    first, second, other = (_read_files(build_random_model(tmp_path / name, seed=seed)) for name, seed in (("a", 5), ("b", 5), ("c", 6)))
    assert first == second
    weights = {name for name in first if name.endswith(".safetensors")}
    assert len(weights) == 4
    assert {name for name in first if first[name] != other[name]} == weights


def test_global_random_state_is_left_alone(tmp_path: Path) -> None:
    before, python_before, numpy_before = torch.get_rng_state(), random.getstate(), str(np.random.get_state())
    build_random_model(tmp_path / "model")
    assert torch.equal(torch.get_rng_state(), before)
    assert (random.getstate(), str(np.random.get_state())) == (python_before, numpy_before)


@pytest.mark.parametrize("num_tokens", [16, 512])
def test_prompts_are_told_apart_at_any_length(tiny_model: Path, num_tokens: int) -> None:
    pipeline = _load(tiny_model)
    with torch.no_grad():
        text, pooled, _ = pipeline.encode_prompt(PROMPTS, max_sequence_length=num_tokens)
    assert text.shape == (2, num_tokens, TINY.text_width)
    assert (text[0] - text[1]).std() > 0.05
    assert (pooled[0] - pooled[1]).std() > 0.05


def test_latents_have_the_scale_of_a_trained_encoder(tiny_model: Path) -> None:
    vae = _load(tiny_model).vae
    pixels = torch.rand(4, 3, 64, 64, generator=torch.Generator().manual_seed(0)) * 2 - 1
    with torch.no_grad():
        latents = (vae.encode(pixels).latent_dist.mode() - vae.config.shift_factor) * vae.config.scaling_factor
        spread = vae.encode(pixels).latent_dist.std
    assert latents.shape == (4, 16, 8, 8)
    assert 0.5 < latents.std() < 2
    assert spread.max() < 1e-6


def test_velocity_answers_to_every_input(tiny_model: Path) -> None:
    transformer = _load(tiny_model).transformer
    draw = torch.Generator().manual_seed(0)
    inputs = {
        "hidden_states": torch.randn(1, 4, 64, generator=draw),
        "encoder_hidden_states": torch.randn(1, 8, TINY.text_width, generator=draw),
        "pooled_projections": torch.randn(1, TINY.text_width, generator=draw),
        "timestep": torch.tensor([0.5]),
        "guidance": torch.tensor([1.0]),
        "img_ids": torch.randint(0, 4, (4, 3), generator=draw).float(),
    }
    text_ids = torch.zeros(8, 3)
    with torch.no_grad():
        velocity = transformer(**inputs, txt_ids=text_ids).sample
        assert 0.1 < velocity.std() < 2
        for name, value in inputs.items():
            changed = transformer(**{**inputs, name: value + 1}, txt_ids=text_ids).sample
            assert not torch.allclose(changed, velocity, atol=1e-5), name


def test_any_size_can_be_asked_for(tmp_path: Path) -> None:
    size = replace(TINY, num_double_blocks=2, num_single_blocks=1)
    transformer = _load(build_random_model(tmp_path / "model", size=size)).transformer
    assert (len(transformer.transformer_blocks), len(transformer.single_transformer_blocks)) == (2, 1)
