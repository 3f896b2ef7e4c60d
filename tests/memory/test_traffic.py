"""What a step of FLUX.1-dev moves, starts, keeps and computes at full size, on the meta device: upper bounds, 3 % above what is reached.

The goals at 1024 pixels: 250 GB moved, 5,000 kernels, 20 GiB kept, 0.42 s on an H100; at 512 pixels 0.12 s. `benchmarks/traffic.py` has
the same of all models, beside diffusers + PEFT.
"""

from __future__ import annotations

from functools import cache

import pytest
import torch
from diffusers import FluxTransformer2DModel
from peft.tuners.tuners_utils import BaseTunerLayer
from torch import nn

from weber.adapters.lora import build_lora
from weber.adapters.target import list_targets
from weber.config.adapter import AdapterConfig
from weber.families.flux1 import keys
from weber.families.flux1.predict import Flux1Predictor
from weber.memory.checkpointing import Mode, build_checkpointing
from weber.memory.estimate import Profile, build_profile
from weber.memory.joined import join_layers
from weber.memory.rates import GIB, Rates, build_rates
from weber.memory.simulate import simulate_pass

GB, NUM_TEXT = 10**9, 512
BOUNDS = {
    # pixels, gradient checkpointing: GB moved, skinny products included; kernels; GiB kept; seconds on an H100
    (1024, "none"): (175, 3940, 20.0, 0.396),
    (1024, "lean"): (187, 4170, 14.5, 0.401),
    (1024, "all"): (239, 5440, 1.6, 0.555),
    (512, "none"): (64.0, 3940, 6.75, 0.104),
}


@cache
def _build() -> tuple[FluxTransformer2DModel, list[nn.Parameter]]:
    """The network with a LoRA of rank 16 on every layer of its blocks."""
    with torch.device("meta"):
        transformer = FluxTransformer2DModel(guidance_embeds=True)
    transformer = nn.Module.to(transformer, torch.bfloat16).requires_grad_(False)
    join_layers([*transformer.transformer_blocks, *transformer.single_transformer_blocks], keys.JOINED_LAYERS)
    modules = list_targets(transformer, "blocks", sets=keys.ADAPTER_TARGETS)
    return transformer, [one for _, one in build_lora(transformer, AdapterConfig(rank=16), modules=modules, seed=0)]


@cache
def _measure(pixels: int, mode: Mode) -> tuple[Profile, float]:
    """A step, and the FLOPs that the formula of performance.md says."""
    transformer, parameters = _build()
    for parameter in parameters:
        parameter.grad = None
    predictor = Flux1Predictor(transformer)
    blocks = [*transformer.transformer_blocks, *transformer.single_transformer_blocks]
    predictor.run = build_checkpointing(mode, blocks=blocks, lean_layers=keys.LEAN_LAYERS)
    noisy, t = torch.empty(1, 16, pixels // 8, pixels // 8, device="meta"), torch.empty(1, device="meta")
    condition = {"text": torch.empty(1, NUM_TEXT, 4096, device="meta"), "pooled": torch.empty(1, 768, device="meta"), "guidance": t}
    trace = simulate_pass(
        predictor, blocks, forward=lambda: predictor(noisy, t, condition).float().mean(), parameters=parameters, is_gpu=True
    )
    profile = build_profile([trace] * len(blocks), range(len(blocks)))

    width, tokens, twice = 3072, (pixels // 16) ** 2 + NUM_TEXT, mode == "all"
    linear, attention = 2 * 12 * width**2 * tokens * len(blocks), 4 * tokens**2 * width * len(blocks)
    adapters = sum(
        2 * 16 * _count_rows(name, tokens) * (layer.in_features + layer.out_features)
        for name, layer in transformer.named_modules()
        if isinstance(layer, BaseTunerLayer)
    )
    return profile, (2 + twice) * linear + (3.5 + twice) * attention + (3 + twice) * adapters


def _count_rows(layer: str, tokens: int) -> int:
    if layer.startswith("single"):
        return tokens
    return NUM_TEXT if "add_" in layer or "context" in layer else tokens - NUM_TEXT


@pytest.fixture
def h100() -> Rates:
    rates = build_rates("NVIDIA H100 80GB HBM3")
    assert rates is not None
    return rates


@pytest.mark.parametrize(("pixels", "mode"), BOUNDS)
def test_a_step_moves_starts_and_keeps_no_more_than_this(pixels: int, mode: Mode, h100: Rates) -> None:
    profile, formula = _measure(pixels, mode)
    work = profile.work
    found = (
        (work.moved_bytes + h100.count_skinny_bytes(work)) / GB,
        work.num_kernels,
        profile.saved_bytes / GIB,
        h100.count_seconds(work),
    )
    assert all(one <= bound for one, bound in zip(found, BOUNDS[pixels, mode], strict=True)), found
    assert work.num_flops / formula == pytest.approx(1, abs=0.01)


def test_products_are_computed_in_the_precision_of_the_model() -> None:
    work = _measure(1024, "none")[0].work
    assert work.flops["float32"] < 1e-4 * work.num_flops


def test_lean_gives_a_quarter_of_what_is_kept_for_a_hundredth_of_the_time() -> None:
    (lean, _), (none, _) = _measure(1024, "lean"), _measure(1024, "none")
    assert lean.saved_bytes < 0.75 * none.saved_bytes and lean.work.num_flops < 1.001 * none.work.num_flops
