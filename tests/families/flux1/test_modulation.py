"""With the modulation apart the network is the same, bit for bit; its layers are no longer in the blocks and compute where they are."""

from __future__ import annotations

from collections.abc import Callable

import pytest
import torch
from torch import Tensor, nn
from torch.utils.checkpoint import checkpoint

from weber.families.flux1.components import Flux1
from weber.families.flux1.modulation import Modulation
from weber.families.flux1.predict import Flux1Predictor
from weber.families.pattern import is_any
from weber.memory.load import load_predictor

CPU = torch.device("cpu")
WIDTH = 32
Draw = Callable[..., tuple[Tensor, Tensor, dict[str, Tensor]]]


def _load(family: Flux1, dtype: torch.dtype, *, is_apart: bool) -> Flux1Predictor:
    predictor = load_predictor(family, device=CPU, dtype=dtype)
    if is_apart:
        predictor = family.build_predictor(predictor.transformer, is_modulation_apart=True)
    assert isinstance(predictor, Flux1Predictor)
    return predictor


def _learn(predictor: Flux1Predictor, family: Flux1, start: Tensor, t: Tensor, condition: dict[str, Tensor]) -> list[Tensor]:
    """Velocity and gradients of two passes at once, each block computed again in the backward pass."""
    predictor.run = lambda block, call, *inputs: checkpoint(call, *inputs, use_reentrant=False)
    weights = [block.attn.to_q.weight.requires_grad_() for block in family.blocks(predictor)]  # type: ignore[union-attr]
    starts = [start.clone().requires_grad_(), (0.5 * start).requires_grad_()]
    velocities = [predictor(one, level, condition) for one, level in zip(starts, (t, 1 - t), strict=True)]
    sum(velocity.float().square().mean() for velocity in velocities).backward()  # type: ignore[union-attr]
    return [*velocities, *(one.grad for one in [*starts, *weights])]


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
def test_equal_to_the_network_as_it_is(family: Flux1, draw_inputs: Draw, dtype: torch.dtype) -> None:
    noisy, t, condition = draw_inputs(2, 6, 4, has_guidance=family.row.has_guidance)
    with torch.no_grad():
        plain, apart = (_load(family, dtype, is_apart=is_apart)(noisy, t, condition) for is_apart in (False, True))
    assert apart.dtype == dtype
    assert torch.equal(plain, apart)


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
def test_equal_where_references_have_their_own_level(kontext: Flux1, draw_inputs: Draw, dtype: torch.dtype) -> None:
    noisy, t, condition = draw_inputs(2, 6, 4, has_guidance=True)
    reference = torch.randn(2, 16, 4, 4, generator=torch.Generator().manual_seed(5))
    results = {}
    for is_apart in (False, True):
        predictor = _load(kontext, dtype, is_apart=is_apart)
        with torch.no_grad():
            results[is_apart] = [
                predictor(noisy, t, condition | {"reference_0": reference} | more) for more in ({}, {"reference_t": torch.zeros(2)})
            ]
    assert all(torch.equal(plain, apart) for plain, apart in zip(results[False], results[True], strict=True))
    assert not torch.equal(*results[True])


def test_equal_gradients_with_two_passes_in_flight(dev: Flux1, draw_inputs: Draw) -> None:
    noisy, t, condition = draw_inputs(1, 4, 6, has_guidance=True)
    plain, apart = (_learn(_load(dev, torch.float32, is_apart=is_apart), dev, noisy, t, condition) for is_apart in (False, True))
    assert len(plain) == 2 + 2 + 3
    assert all(one.abs().max() > 0 and torch.equal(one, other) for one, other in zip(plain, apart, strict=True))


def test_gradients_still_reach_what_embeds_the_noise_level(dev: Flux1, draw_inputs: Draw) -> None:
    noisy, t, condition = draw_inputs(1, 4, 6, has_guidance=True)
    gradients = []
    for is_apart in (False, True):
        predictor = _load(dev, torch.float32, is_apart=is_apart)
        weight = predictor.transformer.time_text_embed.timestep_embedder.linear_2.weight.requires_grad_()
        predictor(noisy, t, condition).square().mean().backward()
        assert weight.grad is not None
        gradients.append(weight.grad)
    assert gradients[0].abs().max() > 1e-3
    assert torch.allclose(*gradients, atol=1e-7)  # the activation's gradient is taken of the sum instead of summed


def test_the_layers_leave_the_blocks_for_the_modulation(dev: Flux1) -> None:
    plain, predictor = (_load(dev, torch.float32, is_apart=is_apart) for is_apart in (False, True))
    linears = {name: module for name, module in plain.transformer.named_modules() if isinstance(module, nn.Linear)}
    taken = [name for name in linears if is_any(name, dev.modulation_modules)]
    left = [name for name, module in predictor.transformer.named_modules() if isinstance(module, nn.Linear)]
    assert left == [name for name in linears if name not in taken]
    assert predictor.modulation is not None
    layers = [layer for layer in predictor.modulation.modules() if isinstance(layer, nn.Linear)]
    assert len(taken) == len(layers) == 2 * len(plain.transformer.transformer_blocks) + len(plain.transformer.single_transformer_blocks)
    assert all(torch.equal(layer.weight, linears[name].weight) for layer, name in zip(layers, taken, strict=True))


def test_a_block_is_handed_its_parts_side_by_side(dev: Flux1) -> None:
    transformer = load_predictor(dev, device=CPU, dtype=torch.float32).transformer
    blocks = [*transformer.transformer_blocks, *transformer.single_transformer_blocks]  # type: ignore[misc]
    embedding = torch.randn(2, WIDTH, generator=torch.Generator().manual_seed(1))
    image, text = torch.randn(2, 4, WIDTH), torch.randn(2, 3, WIDTH)
    with torch.no_grad():
        double, single = blocks[0], blocks[-1]
        theirs = [double.norm1(image, emb=embedding), double.norm1_context(text, emb=embedding), single.norm(image, emb=embedding)]
        modulation = Modulation(blocks)
        made = [modulation(number, modulation.encode(embedding), device=CPU) for number in (0, len(blocks) - 1)]
        ours = [double.norm1(image, emb=made[0]), double.norm1_context(text, emb=made[0]), single.norm(image, emb=made[1])]
    assert [one.shape for one in made] == [(2, 12 * WIDTH), (2, 3 * WIDTH)]
    assert all(one.is_contiguous() for one in made)
    for one, two in zip(ours, theirs, strict=True):
        assert all(torch.equal(ours_part, theirs_part) for ours_part, theirs_part in zip(one, two, strict=True))


def test_it_computes_where_its_layers_are(dev: Flux1) -> None:
    """Here the blocks' device is the one without bytes: what comes out has only a shape, and the layers stay."""
    transformer = load_predictor(dev, device=CPU, dtype=torch.float32).transformer
    modulation = Modulation([*transformer.transformer_blocks, *transformer.single_transformer_blocks])  # type: ignore[misc]
    assert modulation.device == CPU
    assert modulation.encode(torch.randn(1, WIDTH)).device == CPU
    assert modulation(0, torch.randn(1, WIDTH), device=torch.device("meta")).device.type == "meta"
    assert all(parameter.device == CPU for parameter in modulation.parameters())
