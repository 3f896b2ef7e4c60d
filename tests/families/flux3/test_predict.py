"""Our loop over the blocks is the library's own forward: the same numbers, with references and with gradient checkpointing."""

from __future__ import annotations

from collections.abc import Callable

import pytest
import torch
from diffusers import Flux3Transformer2DModel
from diffusers.modular_pipelines.flux3.before_denoise import Flux3TextRoPEInputsStep, _prepare_image_ids
from torch import Tensor

from weber.config.memory import MemoryConfig
from weber.families.family import Predictor, list_references
from weber.families.flux3.components import Flux3
from weber.memory.load import load_predictor
from weber.memory.run import build_run

CPU = torch.device("cpu")
Draw = Callable[..., tuple[Tensor, Tensor, dict[str, Tensor]]]
REFERENCES = [(), ((4, 6),), ((2, 3), (5, 2))]


def _load(family: Flux3, *, dtype: torch.dtype = torch.float32, gradient_checkpointing: bool = False) -> Predictor:
    predictor = load_predictor(family, device=CPU, dtype=dtype)
    predictor.is_fused = False
    predictor.run = build_run(MemoryConfig(gradient_checkpointing="all" if gradient_checkpointing else "none"), predictor, family=family)
    return predictor


def _pack(latents: Tensor) -> Tensor:
    return latents.flatten(2).transpose(1, 2)


def _predict_by_library(transformer: Flux3Transformer2DModel, noisy: Tensor, t: Tensor, condition: dict[str, Tensor]) -> Tensor:
    """As the blocks of the modular pipeline prepare and call it."""
    batch, channels, height, width = noisy.shape
    references, extra = list_references(condition), {}
    if references:
        tokens = torch.cat([_pack(latents) for latents in references], dim=1)
        ids = [_prepare_image_ids(*latents.shape[-2:], 0.5, l_coord=-(1 + index)) for index, latents in enumerate(references)]
        extra = {"image_cond_hidden_states": tokens.to(transformer.dtype), "image_cond_ids": torch.cat(ids)}
    velocity = transformer(
        hidden_states=_pack(noisy).to(transformer.dtype),
        encoder_hidden_states=condition["text"].to(transformer.dtype),
        timestep=t,
        img_ids=_prepare_image_ids(height, width, 0.5),
        txt_ids=Flux3TextRoPEInputsStep._prepare_text_ids(condition["text"]),
        return_dict=False,
        **extra,
    )[0]
    return velocity.view(batch, height, width, channels).permute(0, 3, 1, 2)


@pytest.mark.parametrize("references", REFERENCES)
@pytest.mark.parametrize(("batch", "height", "width"), [(1, 4, 4), (2, 2, 6), (3, 7, 3), (2, 1, 1)])
def test_equal_to_the_library_in_fp32(
    predictor: Predictor, draw_inputs: Draw, batch: int, height: int, width: int, references: tuple[tuple[int, int], ...]
) -> None:
    noisy, t, condition = draw_inputs(batch, height, width, references=references)
    with torch.no_grad():
        ours = predictor(noisy, t, condition)
        theirs = _predict_by_library(predictor.transformer, noisy, t, condition)
    assert ours.shape == noisy.shape
    assert ours.std() > 0.1
    assert (ours - theirs).abs().max().item() == 0.0


@pytest.mark.parametrize("references", REFERENCES)
@pytest.mark.parametrize(("batch", "height", "width"), [(1, 4, 4), (2, 2, 6), (3, 7, 3), (2, 1, 1)])
def test_in_training_modulation_is_made_once_for_all_tokens(
    predictor: Predictor, draw_inputs: Draw, batch: int, height: int, width: int, references: tuple[tuple[int, int], ...]
) -> None:
    noisy, t, condition = draw_inputs(batch, height, width, references=references)
    rows: list[int] = []
    model = predictor.transformer
    heads = [*model.early_stream_modulations.values(), *model.single_stream_modulations.values(), model.norm_out.linear]
    hooks = [head.register_forward_hook(lambda module, inputs, output: rows.append(output.shape[1])) for head in heads]
    with torch.enable_grad():
        ours = predictor(noisy, t, condition)
    for hook in hooks:
        hook.remove()
    assert rows == [1] * (7 if references else 5)
    with torch.no_grad():
        theirs = _predict_by_library(model, noisy, t, condition)
    assert (ours - theirs).abs().max().item() <= 1e-6


def test_every_input_acts(predictor: Predictor, draw_inputs: Draw) -> None:
    noisy, t, condition = draw_inputs(1, 4, 6, references=((3, 3), (3, 3)))
    swapped = {"reference_0": condition["reference_1"], "reference_1": condition["reference_0"]}
    longer = {"text": torch.cat([condition["text"], condition["text"]], dim=1)}
    with torch.no_grad():
        base = predictor(noisy, t, condition)
        others = [predictor(noisy + 0.1, t, condition), predictor(noisy, t * 0.5, condition)]
        others += [predictor(noisy, t, condition | {name: tensor.flip(1)}) for name, tensor in condition.items()]
        others += [predictor(noisy, t, condition | change) for change in (swapped, longer)]
    assert len(others) == 7
    assert all((other - base).abs().max() > 1e-4 for other in others)


@pytest.mark.parametrize("references", REFERENCES)
def test_gradients_are_equal_with_checkpointing(family: Flux3, draw_inputs: Draw, references: tuple[tuple[int, int], ...]) -> None:
    noisy, t, condition = draw_inputs(2, 3, 4, references=references)
    results = []
    for gradient_checkpointing in (False, True):
        predictor = _load(family, gradient_checkpointing=gradient_checkpointing)
        predictor.transformer.requires_grad_(True)
        start = noisy.clone().requires_grad_()
        velocity = predictor(start, t, condition)
        velocity.square().mean().backward()
        gradients = {name: parameter.grad for name, parameter in predictor.transformer.named_parameters()}
        results.append((velocity, start.grad, gradients))
    plain, checkpointed = results
    assert torch.equal(plain[0], checkpointed[0])
    assert torch.equal(plain[1], checkpointed[1])
    assert plain[1].abs().max() > 0
    for name, gradient in plain[2].items():
        is_idle = "image_cond" in name and not references
        assert (gradient is None) == (checkpointed[2][name] is None) == is_idle, name
        assert is_idle or torch.equal(gradient, checkpointed[2][name]), name


def test_checkpointing_keeps_fewer_activations(family: Flux3, draw_inputs: Draw) -> None:
    noisy, t, condition = draw_inputs(1, 8, 8, references=((8, 8),))
    kept = []
    for gradient_checkpointing in (False, True):
        predictor = _load(family, gradient_checkpointing=gradient_checkpointing)
        predictor.transformer.requires_grad_(True)
        numbers: list[int] = []

        def count(tensor: Tensor, numbers: list[int] = numbers) -> Tensor:
            numbers.append(tensor.numel())
            return tensor

        with torch.autograd.graph.saved_tensors_hooks(count, lambda tensor: tensor):
            predictor(noisy, t, condition)
        kept.append(sum(numbers))
    assert kept[1] < kept[0] / 3


def test_t_stays_fp32_in_a_bf16_model(family: Flux3, draw_inputs: Draw) -> None:
    predictor = _load(family, dtype=torch.bfloat16)
    noisy, _, condition = draw_inputs(1, 4, 6)
    near, far = torch.tensor([0.7500]), torch.tensor([0.7508])
    assert torch.equal(near.bfloat16(), far.bfloat16())
    with torch.no_grad():
        ours = [predictor(noisy, t, condition) for t in (near, far)]
        theirs = [_predict_by_library(predictor.transformer, noisy, t, condition) for t in (near, far)]
    assert ours[0].dtype == torch.bfloat16
    assert torch.equal(*theirs)
    assert not torch.equal(*ours)


def test_a_bf16_model_is_near_its_fp32_self(family: Flux3, predictor: Predictor, draw_inputs: Draw) -> None:
    noisy, t, condition = draw_inputs(2, 4, 4, references=((4, 4),))
    with torch.no_grad():
        exact = predictor(noisy, t, condition)
        rounded = _load(family, dtype=torch.bfloat16)(noisy, t, condition).float()
    assert (rounded - exact).square().mean().sqrt() < 0.02 * exact.std()


def test_norms_of_queries_and_keys_stay_fp32(family: Flux3) -> None:
    transformer = _load(family, dtype=torch.bfloat16).transformer
    kept = {name for name, parameter in transformer.named_parameters() if parameter.dtype == torch.float32}
    assert kept == {name for name, _ in transformer.named_parameters() if name.endswith(("norm_q.weight", "norm_k.weight"))}


def test_blocks_are_the_library_blocks_in_order(family: Flux3, predictor: Predictor) -> None:
    model = predictor.transformer
    modes = (*model.txt_mode_blocks, *model.mode_blocks["image"], *model.mode_blocks["image_cond"])
    assert family.blocks(predictor) == [*modes, *model.single_transformer_blocks]
    assert len(family.blocks(predictor)) == 5
