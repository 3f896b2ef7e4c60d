"""Our loop over the blocks is the library's own forward: the same numbers, with and without gradient checkpointing."""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import Any

import pytest
import torch
from diffusers import FluxPipeline, FluxTransformer2DModel
from diffusers.models.embeddings import apply_rotary_emb
from torch import Tensor

from weber.config.memory import MemoryConfig
from weber.families.family import Predictor
from weber.families.flux1.components import Flux1
from weber.families.flux1.predict import NUM_ROTARY, Flux1Predictor
from weber.memory.load import load_predictor
from weber.memory.run import build_run

CPU = torch.device("cpu")
Draw = Callable[..., tuple[Tensor, Tensor, dict[str, Tensor]]]


def _load(family: Flux1, *, dtype: torch.dtype = torch.float32, gradient_checkpointing: bool = False) -> Predictor:
    predictor = load_predictor(family, device=CPU, dtype=dtype)
    predictor.is_fused = False
    predictor.run = build_run(MemoryConfig(gradient_checkpointing="all" if gradient_checkpointing else "none"), predictor, family=family)
    return predictor


def _predict_by_library(transformer: FluxTransformer2DModel, noisy: Tensor, t: Tensor, condition: dict[str, Tensor]) -> Tensor:
    """As in `FluxPipeline`, `FluxKontextPipeline` and `FluxFillPipeline.__call__`, packed and unpacked by their own functions."""
    height, width = noisy.shape[-2:]
    tokens, ids = [_pack(noisy)], [_build_ids(height, width)]
    if "mask" in condition:
        tokens = [torch.cat([_pack(noisy), torch.cat([_pack(condition["masked"]), _pack(condition["mask"])], dim=-1)], dim=2)]
    for number, corner in enumerate([(0, 0), (4, 0)]):
        if f"reference_{number}" in condition:
            reference = condition[f"reference_{number}"]
            tokens.append(_pack(reference))
            ids.append(_build_ids(*reference.shape[-2:]) + torch.tensor([1, *corner]))
    mask = None
    if "text_mask" in condition:
        num_tokens = sum(one.shape[1] for one in tokens)
        mask = {"attention_mask": torch.cat([condition["text_mask"], torch.ones(len(noisy), num_tokens)], dim=1)[:, None, None]}
    out = transformer(
        hidden_states=torch.cat(tokens, dim=1).to(transformer.dtype),
        timestep=t,
        guidance=condition.get("guidance"),
        pooled_projections=condition["pooled"].to(transformer.dtype),
        encoder_hidden_states=condition["text"].to(transformer.dtype),
        txt_ids=torch.zeros(condition["text"].shape[1], 3),
        img_ids=torch.cat(ids),
        joint_attention_kwargs=mask,
        return_dict=False,
    )[0]
    return FluxPipeline._unpack_latents(out[:, : tokens[0].shape[1]], 8 * height, 8 * width, 8)


def _pack(latents: Tensor) -> Tensor:
    return FluxPipeline._pack_latents(latents, *latents.shape)


def _build_ids(height: int, width: int) -> Tensor:
    return FluxPipeline._prepare_latent_image_ids(1, height // 2, width // 2, CPU, torch.float32)


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


@pytest.mark.parametrize("batch", [1, 3])
@pytest.mark.parametrize("sizes", [[(6, 10)], [(10, 4)], [(8, 8), (4, 6)], [(8, 8), (8, 8)]])
def test_references_are_equal_to_the_library(kontext: Flux1, draw_inputs: Draw, sizes: list[tuple[int, int]], batch: int) -> None:
    predictor = _load(kontext)
    noisy, t, condition = draw_inputs(batch, 6, 10, has_guidance=True)
    with torch.no_grad():
        alone = predictor(noisy, t, condition)
        for number, size in enumerate(sizes):
            condition[f"reference_{number}"] = draw_inputs(batch, *size, has_guidance=True)[0]
        ours = predictor(noisy, t, condition)
        theirs = _predict_by_library(predictor.transformer, noisy, t, condition)
    assert (ours - theirs).abs().max().item() == 0.0
    assert (ours - alone).abs().max() > 1e-2


@pytest.mark.parametrize(("height", "width"), [(8, 8), (4, 12)])
@pytest.mark.parametrize("batch", [1, 3])
def test_repainting_is_equal_to_the_library(fill: Flux1, draw_inputs: Draw, batch: int, height: int, width: int) -> None:
    predictor = _load(fill)
    noisy, t, condition = draw_inputs(batch, height, width, has_guidance=True)
    condition["masked"] = noisy.flip(0) + 1
    condition["mask"] = (torch.rand(batch, 64, height, width, generator=torch.Generator().manual_seed(1)) > 0.5).float()
    with torch.no_grad():
        ours = predictor(noisy, t, condition)
        theirs = _predict_by_library(predictor.transformer, noisy, t, condition)
        others = [predictor(noisy, t, condition | {name: condition[name] * 0.5}) for name in ("masked", "mask")]
    assert ours.shape == noisy.shape
    assert (ours - theirs).abs().max().item() == 0.0
    assert all((other - ours).abs().max() > 1e-3 for other in others)


@pytest.mark.parametrize("num_read", [[8], [3], [0, 8, 5]])
def test_masked_text_is_equal_to_the_library(libre: Flux1, draw_inputs: Draw, num_read: list[int]) -> None:
    predictor = _load(libre)
    noisy, t, condition = draw_inputs(len(num_read), 4, 6, has_guidance=False)
    masked = condition | {"text_mask": (torch.arange(8)[None] < torch.tensor(num_read)[:, None]).float()}
    with torch.no_grad():
        ours, unmasked = predictor(noisy, t, masked), predictor(noisy, t, condition)
        theirs = _predict_by_library(predictor.transformer, noisy, t, masked)
    assert (ours - theirs).abs().max().item() == 0.0
    for row, read in enumerate(num_read):
        difference = (ours[row] - unmasked[row]).abs().max()
        assert difference < 1e-5 if read == 8 else difference > 1e-4


def test_padding_weighs_e_times_less_than_text(libre: Flux1, draw_inputs: Draw) -> None:
    """As in LibreFLUX's own pipeline, whose mask of 0 and 1 is added to the scores (see `_build_attention`)."""
    predictor = _load(libre)
    attention = predictor.transformer.single_transformer_blocks[0].attn
    seen: dict[str, Any] = {}
    attention.register_forward_hook(lambda module, args, kwargs, out: seen.update(kwargs, out=out), with_kwargs=True)
    noisy, t, condition = draw_inputs(1, 4, 6, has_guidance=False, num_text_tokens=5)
    with torch.no_grad():
        predictor(noisy, t, condition | {"text_mask": torch.tensor([[1.0, 1.0, 0.0, 0.0, 0.0]])})
        query, key, value = (
            projection(seen["hidden_states"]).unflatten(-1, (attention.heads, attention.head_dim))
            for projection in (attention.to_q, attention.to_k, attention.to_v)
        )
        query, key = attention.norm_q(query), attention.norm_k(key)
        query, key = (apply_rotary_emb(one, seen["image_rotary_emb"], sequence_dim=1) for one in (query, key))
        weights = (torch.einsum("bqhd,bkhd->bhqk", query, key) / attention.head_dim**0.5).exp()
        weights[..., 2:5] /= math.e
        expected = torch.einsum("bhqk,bkhd->bqhd", weights / weights.sum(dim=-1, keepdim=True), value).flatten(2)
    assert seen["out"].std() > 1e-3
    assert torch.allclose(seen["out"], expected, atol=1e-5)


def test_positions_that_are_kept_are_few(dev: Flux1, draw_inputs: Draw) -> None:
    predictor = _load(dev)
    assert isinstance(predictor, Flux1Predictor)
    sizes = [(2, 2 * columns) for columns in range(1, NUM_ROTARY + 3)]
    for height, width in sizes + sizes[:2]:
        noisy, t, condition = draw_inputs(1, height, width, has_guidance=True)
        with torch.no_grad():
            ours = predictor(noisy, t, condition)
    assert torch.equal(ours, _predict_by_library(predictor.transformer, noisy, t, condition))
    assert len(predictor._rotary) == NUM_ROTARY


@pytest.mark.parametrize("kind", ["kontext", "fill"])
def test_pictures_may_come_from_the_cache_in_bf16(kind: str, draw_inputs: Draw, request: pytest.FixtureRequest) -> None:
    predictor = _load(request.getfixturevalue(kind))
    noisy, t, condition = draw_inputs(1, 4, 6, has_guidance=True)
    names = ("reference_0",) if kind == "kontext" else ("masked", "mask")
    draw = torch.Generator().manual_seed(7)
    pictures = {name: torch.randn(1, 64 if name == "mask" else 16, 4, 6, generator=draw).bfloat16() for name in names}
    with torch.no_grad():
        ours, exact = (predictor(noisy, t, condition | one) for one in (pictures, {name: one.float() for name, one in pictures.items()}))
    assert ours.dtype == torch.float32
    assert torch.equal(ours, exact)


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
