"""Our loop over the blocks equals `Flux2Transformer2DModel.forward` in fp32, to the last bit, with its gradients."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest
import torch
from diffusers import Flux2Pipeline, Flux2Transformer2DModel
from peft import LoraConfig
from torch import Tensor

from weber.config.memory import MemoryConfig
from weber.families.flux2.components import Flux2
from weber.families.flux2.predict import Flux2Predictor
from weber.memory.load import load_predictor
from weber.memory.run import build_run

CPU = torch.device("cpu")
LAYOUTS = {"text to image": [(4, 6)], "one reference": [(4, 6), (3, 3)], "two references": [(5, 4), (2, 7), (6, 1)]}
Draw = Callable[..., tuple[Tensor, Tensor, dict[str, Tensor]]]


def _load(family: Flux2, *, dtype: torch.dtype = torch.float32, gradient_checkpointing: bool = False) -> Flux2Predictor:
    predictor = load_predictor(family, device=CPU, dtype=dtype)
    predictor.is_fused = False
    predictor.run = build_run(MemoryConfig(gradient_checkpointing="all" if gradient_checkpointing else "none"), predictor, family=family)
    assert isinstance(predictor, Flux2Predictor)
    return predictor


def _call_library(model: Flux2Transformer2DModel, noisy: Tensor, t: Tensor, condition: dict[str, Tensor]) -> Tensor:
    """As the pipelines call it: references behind the picture, positions from the pipelines' own functions."""
    references = [tensor for name, tensor in condition.items() if name.startswith("reference")]
    tokens = torch.cat([Flux2Pipeline._pack_latents(latents) for latents in (noisy, *references)], dim=1)
    ids = [Flux2Pipeline._prepare_latent_ids(noisy)[:1]]
    if references:
        ids.append(Flux2Pipeline._prepare_image_ids([latents[:1] for latents in references]))
    out = model(
        hidden_states=tokens,
        timestep=t,
        guidance=condition.get("guidance"),
        encoder_hidden_states=condition["text"],
        txt_ids=Flux2Pipeline._prepare_text_ids(condition["text"]),
        img_ids=torch.cat(ids, dim=1),
    ).sample
    num_tokens = noisy.shape[-2] * noisy.shape[-1]
    return torch.stack(
        [Flux2Pipeline._unpack_latents_with_ids(out[:1, :num_tokens], ids[0])[0]]
        + [Flux2Pipeline._unpack_latents_with_ids(row[None, :num_tokens], ids[0])[0] for row in out[1:]]
    )


@pytest.mark.parametrize("layout", LAYOUTS)
@pytest.mark.parametrize("batch", [1, 3])
@pytest.mark.parametrize("kind", ["dev", "klein"])
def test_forward_equals_the_library(families: dict[str, Flux2], draw_inputs: Draw, kind: str, batch: int, layout: str) -> None:
    predictor = _load(families[kind])
    noisy, t, condition = draw_inputs(batch, LAYOUTS[layout], has_guidance=kind == "dev")
    with torch.no_grad():
        velocity = predictor(noisy, t, condition)
        expected = _call_library(predictor.transformer, noisy, t, condition)
    assert velocity.shape == noisy.shape
    assert velocity.std() > 0.1
    assert torch.equal(velocity, expected)


def test_one_predictor_for_layouts_in_turn(families: dict[str, Flux2], draw_inputs: Draw) -> None:
    """Positions are remembered, but not for another layout."""
    predictor = _load(families["dev"])
    drawn = [draw_inputs(1, sizes, has_guidance=True, num_text_tokens=num) for sizes in LAYOUTS.values() for num in (8, 5)]
    with torch.no_grad():
        for noisy, t, condition in [*drawn, *drawn]:
            assert torch.equal(predictor(noisy, t, condition), _call_library(predictor.transformer, noisy, t, condition))


@pytest.mark.parametrize("layout", LAYOUTS)
@pytest.mark.parametrize("gradient_checkpointing", [False, True])
def test_gradients_equal_the_library(
    families: dict[str, Flux2], draw_inputs: Draw, gradient_checkpointing: bool, layout: str
) -> None:
    noisy, t, condition = draw_inputs(2, LAYOUTS[layout], has_guidance=True)
    gradients: list[dict[str, Any]] = []
    for call in (lambda predictor, *inputs: predictor(*inputs), lambda predictor, *inputs: _call_library(predictor.transformer, *inputs)):
        predictor = _load(families["dev"], gradient_checkpointing=gradient_checkpointing)
        predictor.requires_grad_(True)
        call(predictor, noisy, t, condition).square().mean().backward()
        gradients.append({name: parameter.grad for name, parameter in predictor.named_parameters()})
    assert gradients[0].keys() == gradients[1].keys()
    for name, gradient in gradients[0].items():
        assert gradient is not None and gradient.abs().max() > 0, name
        assert torch.equal(gradient, gradients[1][name]), name


def test_every_input_is_seen(families: dict[str, Flux2], draw_inputs: Draw) -> None:
    predictor = _load(families["dev"])
    noisy, t, condition = draw_inputs(1, LAYOUTS["two references"], has_guidance=True)
    with torch.no_grad():
        velocity = predictor(noisy, t, condition)
        for name, tensor in condition.items():
            changed = predictor(noisy, t, condition | {name: tensor + 1})
            assert (changed - velocity).abs().max() > 1e-4, name
        assert (predictor(noisy, t + 0.1, condition) - velocity).abs().max() > 1e-4
        swapped = condition | {"reference_0": condition["reference_1"], "reference_1": condition["reference_0"]}
        assert (predictor(noisy, t, swapped) - velocity).abs().max() > 1e-6


def test_a_model_without_a_guidance_input_ignores_it(families: dict[str, Flux2], draw_inputs: Draw) -> None:
    predictor = _load(families["klein"])
    noisy, t, condition = draw_inputs(1, [(3, 3)], has_guidance=True)
    without = {name: tensor for name, tensor in condition.items() if name != "guidance"}
    with torch.no_grad():
        assert torch.equal(predictor(noisy, t, condition), predictor(noisy, t, without))


def test_t_and_guidance_are_rounded_after_their_sinusoids(families: dict[str, Flux2], draw_inputs: Draw) -> None:
    """In bf16 the library rounds 0.9015 to 0.8984 and reads the sinusoids there."""
    predictor = _load(families["dev"], dtype=torch.bfloat16)
    seen: list[Tensor] = []
    embedder = predictor.transformer.time_guidance_embed
    for module in (embedder.timestep_embedder, embedder.guidance_embedder):
        module.register_forward_pre_hook(lambda _, inputs: seen.append(inputs[0]))
    noisy, _, condition = draw_inputs(1, [(3, 3)], has_guidance=True)
    with torch.no_grad():
        velocity = predictor(noisy, torch.tensor([0.9015]), condition | {"guidance": torch.tensor([3.53])})
    assert velocity.dtype == torch.bfloat16
    for inputs, exact in zip(seen, (901.5, 3530.0), strict=True):
        assert torch.equal(inputs, embedder.time_proj(torch.tensor([exact])).bfloat16())
        assert not torch.equal(inputs, embedder.time_proj(torch.tensor([exact]).bfloat16()).bfloat16())


def test_adapters_are_part_of_it(families: dict[str, Flux2], draw_inputs: Draw) -> None:
    """With adapters on every kind of layer, ours and the library's forward stay one."""
    predictor = _load(families["dev"])
    targets = ["to_q", "to_out.0", "to_qkv_mlp_proj", "linear_in", "linear_1", "x_embedder", "context_embedder", "linear", "proj_out"]
    predictor.transformer.add_adapter(LoraConfig(r=4, target_modules=targets, init_lora_weights=False))
    noisy, t, condition = draw_inputs(2, LAYOUTS["one reference"], has_guidance=True)
    with torch.no_grad():
        velocity = predictor(noisy, t, condition)
        assert torch.equal(velocity, _call_library(predictor.transformer, noisy, t, condition))
        predictor.transformer.disable_adapters()
        assert not torch.allclose(velocity, predictor(noisy, t, condition), atol=1e-3)


def test_blocks_in_order(families: dict[str, Flux2]) -> None:
    predictor = _load(families["dev"])
    transformer = predictor.transformer
    assert families["dev"].blocks(predictor) == [*transformer.transformer_blocks, *transformer.single_transformer_blocks]
    assert len(families["dev"].blocks(predictor)) == 3
