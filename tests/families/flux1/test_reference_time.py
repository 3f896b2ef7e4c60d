"""References with a noise level of their own: the library's block where both levels are one, and each token its own where they differ."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest
import torch
from torch import Tensor

from weber.config.memory import MemoryConfig
from weber.families.flux1.components import Flux1
from weber.families.flux1.predict import Flux1Predictor
from weber.families.flux1.reference_time import ReferenceTime
from weber.memory.load import load_predictor
from weber.memory.run import build_run

CPU = torch.device("cpu")
BATCH, NUM_TEXT, NUM_TOKENS, NUM_ALL, WIDTH = 2, 5, 6, 10, 32
Draw = Callable[..., tuple[Tensor, Tensor, dict[str, Tensor]]]


def _load(family: Flux1, *, dtype: torch.dtype = torch.float32, gradient_checkpointing: bool = False) -> Flux1Predictor:
    predictor = load_predictor(family, device=CPU, dtype=dtype)
    predictor.is_fused = False
    predictor.run = build_run(MemoryConfig(gradient_checkpointing="all" if gradient_checkpointing else "none"), predictor, family=family)
    assert isinstance(predictor, Flux1Predictor)
    return predictor


def _list_blocks(predictor: Flux1Predictor) -> dict[str, Any]:
    model = predictor.transformer
    return {"double": model.transformer_blocks[0], "single": model.single_transformer_blocks[0]}


def _draw_block_inputs(predictor: Flux1Predictor, dtype: torch.dtype = torch.float32) -> tuple[Tensor, Tensor, Tensor, Tensor, Any]:
    """Image and text tokens, two modulations, positions."""
    draw = torch.Generator().manual_seed(3)
    shapes = ((BATCH, NUM_ALL, WIDTH), (BATCH, NUM_TEXT, WIDTH), (BATCH, WIDTH), (BATCH, WIDTH))
    image, text, modulation, other = (torch.randn(shape, generator=draw).to(dtype) for shape in shapes)
    rotary = predictor.transformer.pos_embed(torch.randint(0, 4, (NUM_TEXT + NUM_ALL, 3), generator=draw))
    return image, text, modulation, other, rotary


@pytest.mark.parametrize("attention", [None, {"attention_mask": torch.arange(NUM_TEXT + NUM_ALL).fmod(2)[None, None, None]}])
@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16, torch.float16])
@pytest.mark.parametrize("kind", ["double", "single"])
def test_one_level_for_all_is_the_librarys_block(kontext: Flux1, kind: str, dtype: torch.dtype, attention: Any) -> None:
    predictor = _load(kontext, dtype=dtype)
    block = _list_blocks(predictor)[kind]
    image, text, modulation, other, rotary = _draw_block_inputs(predictor, dtype)
    attention = attention and {name: mask.to(dtype) for name, mask in attention.items()}
    with torch.no_grad():
        theirs = block(image, text, modulation, rotary, attention)
        ours = ReferenceTime(block, modulation, NUM_TOKENS)(image, text, modulation, rotary, attention)
        different = ReferenceTime(block, other, NUM_TOKENS)(image, text, modulation, rotary, attention)
    for one, two, changed in zip(ours, theirs, different, strict=True):
        assert torch.equal(one, two)
        assert not torch.equal(changed, two)


@pytest.mark.parametrize("kind", ["double", "single"])
def test_each_token_has_its_own_level(kontext: Flux1, kind: str) -> None:
    """Without attention no token sees another, so that the library's block can be asked for each level alone."""
    predictor = _load(kontext)
    block = _list_blocks(predictor)[kind]
    image, text, modulation, other, rotary = _draw_block_inputs(predictor)
    with torch.no_grad():
        for projection in [block.attn.to_v] + ([block.attn.add_v_proj] if kind == "double" else []):
            projection.weight.zero_()
            projection.bias.zero_()
        ours_text, ours = ReferenceTime(block, other, NUM_TOKENS)(image, text, modulation, rotary, None)
        text_alone, picture = block(image, text, modulation, rotary)
        reference = block(image, text, other, rotary)[1]
    assert torch.allclose(ours_text, text_alone, atol=1e-6)
    assert torch.allclose(ours[:, :NUM_TOKENS], picture[:, :NUM_TOKENS], atol=1e-6)
    assert torch.allclose(ours[:, NUM_TOKENS:], reference[:, NUM_TOKENS:], atol=1e-6)
    assert (picture - reference).abs().max() > 1e-2


def _draw_condition(draw_inputs: Draw) -> tuple[Tensor, Tensor, dict[str, Tensor]]:
    noisy, t, condition = draw_inputs(2, 4, 6, has_guidance=True)
    return noisy, t, condition | {f"reference_{number}": draw_inputs(2, 6, 4 + number * 2, has_guidance=True)[0] for number in range(2)}


@pytest.mark.parametrize("gradient_checkpointing", [False, True])
def test_the_network_with_one_level_for_all(kontext: Flux1, draw_inputs: Draw, gradient_checkpointing: bool) -> None:
    predictor = _load(kontext, gradient_checkpointing=gradient_checkpointing)
    predictor.transformer.requires_grad_(True)
    noisy, t, condition = _draw_condition(draw_inputs)
    results = []
    for given in (condition, condition | {"reference_t": t}):
        velocity = predictor(noisy, t, given)
        predictor.transformer.zero_grad()
        velocity.square().mean().backward()
        results.append((velocity, {name: parameter.grad for name, parameter in predictor.transformer.named_parameters()}))
    (shared, shared_gradients), (own, own_gradients) = results
    assert torch.equal(shared, own)
    for name, gradient in shared_gradients.items():
        assert gradient is not None and own_gradients[name] is not None
        assert torch.allclose(gradient, own_gradients[name], atol=1e-6, rtol=1e-4), name


def test_the_network_with_clean_references(kontext: Flux1, draw_inputs: Draw) -> None:
    predictor = _load(kontext)
    noisy, t, condition = _draw_condition(draw_inputs)
    with torch.no_grad():
        shared = predictor(noisy, t, condition)
        clean = predictor(noisy, t, condition | {"reference_t": torch.zeros(2)})
        half = predictor(noisy, t, condition | {"reference_t": 0.5 * t})
        later = predictor(noisy, 0.5 * t, condition | {"reference_t": torch.zeros(2)})
    assert all((one - two).abs().max() > 1e-4 for one, two in ((shared, clean), (clean, half), (clean, later)))


def test_without_references_their_level_has_no_effect(kontext: Flux1, draw_inputs: Draw) -> None:
    predictor = _load(kontext)
    noisy, t, condition = draw_inputs(2, 4, 6, has_guidance=True)
    with torch.no_grad():
        assert torch.equal(predictor(noisy, t, condition), predictor(noisy, t, condition | {"reference_t": torch.zeros(2)}))
