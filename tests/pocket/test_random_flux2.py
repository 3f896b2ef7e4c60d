"""The random models are real FLUX.2: the library opens them and paints; the same seed gives the same bytes."""

from __future__ import annotations

import random
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from diffusers import Flux2KleinPipeline, Flux2Pipeline
from transformers import Qwen2Tokenizer, TokenizersBackend

from weber.pocket.random_flux2 import Kind, build_mistral_tokenizer, build_qwen_tokenizer, build_random_flux2

KINDS: tuple[Kind, ...] = ("dev", "klein", "klein-base")
PROMPTS = ["red apple, 3d fluent style", "a zebra I never saw: Ünïcode 😀"]


def _read_files(folder: Path) -> dict[str, bytes]:
    return {file.relative_to(folder).as_posix(): file.read_bytes() for file in folder.rglob("*") if file.is_file()}


def _open(folder: Path, kind: Kind) -> Any:
    pipeline = (Flux2Pipeline if kind == "dev" else Flux2KleinPipeline).from_pretrained(folder)
    pipeline.set_progress_bar_config(disable=True)
    return pipeline


@pytest.mark.parametrize("kind", KINDS)
def test_the_library_opens_it_and_paints(kind: Kind, tmp_path: Path) -> None:
    pipeline = _open(build_random_flux2(tmp_path / "model", kind), kind)
    assert pipeline.transformer.config.guidance_embeds == (kind == "dev")
    assert kind == "dev" or pipeline.config.is_distilled == (kind == "klein")
    assert isinstance(pipeline.tokenizer, TokenizersBackend if kind == "dev" else Qwen2Tokenizer)
    generator = torch.Generator().manual_seed(3)
    pixels = np.asarray(pipeline(prompt=PROMPTS, height=64, width=48, num_inference_steps=2, output_type="np", generator=generator).images)
    assert pixels.shape == (2, 64, 48, 3)
    assert np.isfinite(pixels).all()
    assert pixels.std() > 0.05
    assert np.abs(pixels[0] - pixels[1]).mean() > 0.01


@pytest.mark.parametrize("kind", KINDS)
def test_same_seed_same_bytes_and_another_seed_other_weights(kind: Kind, tmp_path: Path) -> None:
    builds = (("a", 5), ("b", 5), ("c", 6))
    first, second, other = (_read_files(build_random_flux2(tmp_path / name, kind, seed=seed)) for name, seed in builds)
    assert first == second
    weights = {name for name in first if name.endswith(".safetensors")}
    assert len(weights) == 3
    assert {name for name in first if first[name] != other[name]} == weights


def test_global_random_state_is_left_alone(tmp_path: Path) -> None:
    before, python_before, numpy_before = torch.get_rng_state(), random.getstate(), str(np.random.get_state())
    build_random_flux2(tmp_path / "model", "dev")
    assert torch.equal(torch.get_rng_state(), before)
    assert (random.getstate(), str(np.random.get_state())) == (python_before, numpy_before)


def test_any_number_of_blocks(tmp_path: Path) -> None:
    transformer = _open(build_random_flux2(tmp_path / "model", "klein", num_blocks=(2, 1)), "klein").transformer
    assert (len(transformer.transformer_blocks), len(transformer.single_transformer_blocks)) == (2, 1)


@pytest.mark.parametrize("build", [build_mistral_tokenizer, build_qwen_tokenizer])
def test_words_are_tokens_and_the_rest_falls_into_bytes(build: Any) -> None:
    tokenizer = build(["red", "apple"])
    assert tokenizer.tokenize("red apple") == ["red", "Ġapple"]
    for text in PROMPTS:
        assert tokenizer.decode(tokenizer(text, add_special_tokens=False).input_ids) == text


@pytest.mark.parametrize("kind", ["dev", "klein"])
def test_latents_have_the_scale_of_a_trained_encoder(kind: Kind, tmp_path: Path) -> None:
    pipeline = _open(build_random_flux2(tmp_path / "model", kind), kind)
    pixels = torch.rand(4, 3, 64, 64, generator=torch.Generator().manual_seed(0)) * 2 - 1
    with torch.no_grad():
        latents = pipeline._encode_vae_image(pixels, generator=None)
    assert latents.shape == (4, 128, 4, 4)
    assert 0.5 < latents.std() < 2
