"""The file in other hands: `FluxPipeline.load_lora_weights` paints the same picture as weber does."""

from __future__ import annotations

from collections.abc import Callable
from functools import lru_cache
from pathlib import Path

import numpy as np
import pytest
import torch
from diffusers import FluxPipeline
from torch import nn

from weber.adapters.files import load_adapter, save_adapter
from weber.adapters.lora import list_factors, load_adapter_onto, write_strength
from weber.config.adapter import AdapterConfig
from weber.config.model import ModelConfig
from weber.families.table import build_family
from weber.memory.load import load_predictor
from weber.progress import ignore_progress
from weber.sampling.euler import Painting
from weber.sampling.validate import decode_pictures, predict_paintings

CPU = torch.device("cpu")
PROMPT = "red apple, 3d fluent style"
HEIGHT, WIDTH, SEED, NUM_STEPS, GUIDANCE = 48, 64, 11, 4, 3.5


def _paint_by_weber(model: Path, adapter_path: Path, *, strength: float = 1.0) -> np.ndarray:
    family = build_family(ModelConfig(path=str(model)))
    predictor = load_predictor(family, device=CPU, dtype=torch.float32)
    load_adapter_onto(predictor.transformer, load_adapter(adapter_path))
    write_strength(predictor.transformer, strength)
    condition: dict[str, torch.Tensor] = {}
    with torch.no_grad():
        for part in family.text_parts:
            condition |= family.encode_prompts(part, family.load(part, device=CPU, dtype=torch.float32), [PROMPT])
    if family.sample_defaults.guidance is not None:
        condition["guidance"] = torch.tensor([GUIDANCE])
    latents = predict_paintings(
        predictor,
        [Painting(family.latent_shape(HEIGHT, WIDTH), SEED, condition)],
        sigmas=lambda shape: family.sigmas(NUM_STEPS, family.num_tokens(*shape[1:])),
        device=CPU,
        progress=ignore_progress,
    )
    decoder = family.load(family.image_part, device=CPU, dtype=torch.float32)
    return np.asarray(decode_pictures(lambda one: family.decode_latents(decoder, one), latents)[0]).astype(int)


def _paint_by_pipeline(model: Path, adapter_path: Path | None, *, num_tokens: int) -> np.ndarray:
    pipeline = FluxPipeline.from_pretrained(model)
    pipeline.set_progress_bar_config(disable=True)
    if adapter_path is not None:
        pipeline.load_lora_weights(adapter_path.parent, weight_name=adapter_path.name)
    picture = pipeline(
        PROMPT,
        height=HEIGHT,
        width=WIDTH,
        num_inference_steps=NUM_STEPS,
        guidance_scale=GUIDANCE,
        max_sequence_length=num_tokens,
        generator=torch.Generator().manual_seed(SEED),
    ).images[0]
    return np.asarray(picture).astype(int)


@lru_cache
def _paint_base(model: Path, num_tokens: int) -> np.ndarray:
    return _paint_by_pipeline(model, None, num_tokens=num_tokens)


def _save_random(
    path: Path, model: Path, config: AdapterConfig, put_adapter: Callable[..., list[tuple[str, nn.Parameter]]], layout: str = "diffusers"
) -> Path:
    family = build_family(ModelConfig(path=str(model)))
    network = load_predictor(family, device=CPU, dtype=torch.float32).transformer
    put_adapter(network, config, random_b=True)
    save_adapter(path, list_factors(network), layout=layout, facts={}, metadata={}, pairings=family.pairings)
    return path


@pytest.mark.parametrize(
    ("model", "targets", "rank", "alpha", "layout"),
    [
        ("tiny_model", "all+ffs", 4, 1.0, "diffusers"),
        ("tiny_model", "ai-toolkit", 3, 7.5, "diffusers"),
        ("tiny_schnell", "mmdit", 2, 16.0, "diffusers"),
        ("tiny_model", ["x_embedder", "single_transformer_blocks.1.proj_out"], 8, 20.0, "diffusers"),
        ("tiny_model", "mmdit", 3, 7.5, "kohya"),
        ("tiny_model", "mmdit", 3, 7.5, "comfyui"),
    ],
)
def test_same_picture_as_the_pipeline(
    model: str,
    targets: str | list[str],
    rank: int,
    alpha: float | None,
    layout: str,
    tmp_path: Path,
    put_adapter: Callable[..., list[tuple[str, nn.Parameter]]],
    request: pytest.FixtureRequest,
) -> None:
    folder: Path = request.getfixturevalue(model)
    config = AdapterConfig(rank=rank, alpha=alpha, targets=targets)
    path = _save_random(tmp_path / "adapter.safetensors", folder, config, put_adapter, layout)
    num_tokens = 512 if model == "tiny_model" else 256
    ours, theirs = _paint_by_weber(folder, path), _paint_by_pipeline(folder, path, num_tokens=num_tokens)
    base = _paint_base(folder, num_tokens)
    assert ours.shape == (HEIGHT, WIDTH, 3)
    assert np.abs(ours - base).max() > 4, "an adapter without effect would show nothing"
    assert np.abs(ours - theirs).max() <= 1
    assert np.abs(_paint_by_weber(folder, path, strength=0.0) - base).max() <= 1


def test_without_its_metadata_the_file_says_the_same(
    tiny_model: Path, tmp_path: Path, put_adapter: Callable[..., list[tuple[str, nn.Parameter]]]
) -> None:
    """A reader that does not find alpha there takes alpha = rank, and that is what the file means: the scale is in its numbers."""
    from safetensors.torch import load_file, save_file

    path = _save_random(tmp_path / "adapter.safetensors", tiny_model, AdapterConfig(rank=4, alpha=16.0), put_adapter)
    save_file(load_file(path), tmp_path / "bare.safetensors")
    ours = _paint_by_weber(tiny_model, path)
    assert np.abs(ours - _paint_by_pipeline(tiny_model, tmp_path / "bare.safetensors", num_tokens=512)).max() <= 1
