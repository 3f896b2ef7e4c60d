"""Our loop over the blocks is the library's own forward: the same numbers, with and without gradient checkpointing."""

from __future__ import annotations

from collections.abc import Callable

import pytest
import torch
from diffusers import FluxPipeline, FluxTransformer2DModel
from torch import Tensor

from weber.families.family import Predictor
from weber.families.flux1.components import Flux1

CPU = torch.device("cpu")
Draw = Callable[..., tuple[Tensor, Tensor, dict[str, Tensor]]]


def _load(family: Flux1, *, dtype: torch.dtype = torch.float32, gradient_checkpointing: bool = False) -> Predictor:
    return family.load_predictor(device=CPU, dtype=dtype, gradient_checkpointing=gradient_checkpointing)


def _predict_by_library(transformer: FluxTransformer2DModel, noisy: Tensor, t: Tensor, condition: dict[str, Tensor]) -> Tensor:
    """As in `FluxPipeline.__call__`, packed and unpacked by its own functions."""
    batch, channels, height, width = noisy.shape
    packed = FluxPipeline._pack_latents(noisy, batch, channels, height, width)
    tokens = transformer(
        hidden_states=packed.to(transformer.dtype),
        timestep=t,
        guidance=condition.get("guidance"),
        pooled_projections=condition["pooled"].to(transformer.dtype),
        encoder_hidden_states=condition["text"].to(transformer.dtype),
        txt_ids=torch.zeros(condition["text"].shape[1], 3),
        img_ids=FluxPipeline._prepare_latent_image_ids(batch, height // 2, width // 2, CPU, torch.float32),
        return_dict=False,
    )[0]
    return FluxPipeline._unpack_latents(tokens, 8 * height, 8 * width, 8)


@pytest.mark.parametrize(("height", "width"), [(8, 8), (4, 12), (14, 6), (2, 2)])
@pytest.mark.parametrize("batch", [1, 2, 3])
def test_equal_to_the_library_in_fp32(family: Flux1, draw_inputs: Draw, batch: int, height: int, width: int) -> None:
    predictor = _load(family)
    noisy, t, condition = draw_inputs(batch, height, width, has_guidance=family.row.has_guidance)
    with torch.no_grad():
        ours = predictor(noisy, t, condition)
        theirs = _predict_by_library(predictor.transformer, noisy, t, condition)
    assert ours.shape == noisy.shape
    assert ours.std() > 0.1
    assert (ours - theirs).abs().max().item() == 0.0


def test_one_predictor_serves_all_sizes_in_any_order(dev: Flux1, draw_inputs: Draw) -> None:
    predictor = _load(dev)
    for height, width, num_text_tokens in ((4, 6, 8), (6, 4, 8), (4, 6, 5), (4, 6, 8)):
        noisy, t, condition = draw_inputs(1, height, width, has_guidance=True, num_text_tokens=num_text_tokens)
        with torch.no_grad():
            assert torch.equal(predictor(noisy, t, condition), _predict_by_library(predictor.transformer, noisy, t, condition))


def test_every_input_acts(dev: Flux1, draw_inputs: Draw) -> None:
    predictor = _load(dev)
    noisy, t, condition = draw_inputs(1, 4, 6, has_guidance=True)
    with torch.no_grad():
        base = predictor(noisy, t, condition)
        others = [predictor(noisy + 0.1, t, condition), predictor(noisy, t * 0.5, condition)]
        others += [predictor(noisy, t, condition | {name: tensor * 1.5}) for name, tensor in condition.items()]
    assert len(others) == 5
    assert all((other - base).abs().max() > 1e-4 for other in others)


def test_gradients_are_equal_with_checkpointing(family: Flux1, draw_inputs: Draw) -> None:
    noisy, t, condition = draw_inputs(2, 6, 4, has_guidance=family.row.has_guidance)
    results = []
    for gradient_checkpointing in (False, True):
        predictor = _load(family, gradient_checkpointing=gradient_checkpointing)
        predictor.transformer.requires_grad_(True)
        start = noisy.clone().requires_grad_()
        velocity = predictor(start, t, condition)
        velocity.square().mean().backward()
        gradients = {name: parameter.grad for name, parameter in predictor.transformer.named_parameters()}
        assert all(gradient is not None for gradient in gradients.values())
        results.append((velocity, start.grad, gradients))
    plain, checkpointed = results
    assert torch.equal(plain[0], checkpointed[0])
    assert torch.equal(plain[1], checkpointed[1])
    assert plain[1].abs().max() > 0
    for name, gradient in plain[2].items():
        assert torch.equal(gradient, checkpointed[2][name]), name


def test_checkpointing_keeps_fewer_activations(dev: Flux1, draw_inputs: Draw) -> None:
    noisy, t, condition = draw_inputs(1, 8, 8, has_guidance=True)
    kept = []
    for gradient_checkpointing in (False, True):
        predictor = _load(dev, gradient_checkpointing=gradient_checkpointing)
        predictor.transformer.requires_grad_(True)
        numbers: list[int] = []

        def count(tensor: Tensor, numbers: list[int] = numbers) -> Tensor:
            numbers.append(tensor.numel())
            return tensor

        with torch.autograd.graph.saved_tensors_hooks(count, lambda tensor: tensor):
            predictor(noisy, t, condition)
        kept.append(sum(numbers))
    assert kept[1] < kept[0] / 3


def test_t_stays_fp32_in_a_bf16_model(dev: Flux1, draw_inputs: Draw) -> None:
    predictor = _load(dev, dtype=torch.bfloat16)
    noisy, _, condition = draw_inputs(1, 4, 6, has_guidance=True)
    near, far = torch.tensor([0.7500]), torch.tensor([0.7508])
    assert torch.equal(near.bfloat16(), far.bfloat16())
    with torch.no_grad():
        ours = [predictor(noisy, t, condition) for t in (near, far)]
        theirs = [_predict_by_library(predictor.transformer, noisy, t, condition) for t in (near, far)]
    assert ours[0].dtype == torch.bfloat16
    assert torch.equal(*theirs)
    assert not torch.equal(*ours)


def test_guidance_stays_fp32_in_a_bf16_model(dev: Flux1, draw_inputs: Draw) -> None:
    predictor = _load(dev, dtype=torch.bfloat16)
    noisy, t, condition = draw_inputs(1, 4, 6, has_guidance=True)
    near, far = torch.tensor([3.5000]), torch.tensor([3.5030])
    assert torch.equal(near.bfloat16(), far.bfloat16())
    with torch.no_grad():
        assert not torch.equal(predictor(noisy, t, condition | {"guidance": near}), predictor(noisy, t, condition | {"guidance": far}))


def test_a_bf16_model_is_near_its_fp32_self(family: Flux1, draw_inputs: Draw) -> None:
    noisy, t, condition = draw_inputs(2, 6, 6, has_guidance=family.row.has_guidance)
    with torch.no_grad():
        exact = _load(family)(noisy, t, condition)
        rounded = _load(family, dtype=torch.bfloat16)(noisy, t, condition).float()
    assert (rounded - exact).square().mean().sqrt() < 0.02 * exact.std()


def test_blocks_are_the_library_blocks_in_order(dev: Flux1) -> None:
    predictor = _load(dev)
    transformer = predictor.transformer
    assert dev.blocks(predictor) == [*transformer.transformer_blocks, *transformer.single_transformer_blocks]
    assert len(dev.blocks(predictor)) == 3
