"""The objective against its formulas, and against a reference that is put together from diffusers and PEFT alone."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from pathlib import Path

import pytest
import torch
from diffusers import FluxPipeline, FluxTransformer2DModel
from peft import LoraConfig
from torch import Tensor

from weber.adapters.lora import build_lora
from weber.adapters.target import list_targets
from weber.config.adapter import AdapterConfig
from weber.config.memory import MemoryConfig
from weber.config.model import ModelConfig
from weber.config.objective import ObjectiveConfig
from weber.families.flux1.keys import ADAPTER_TARGETS
from weber.families.table import build_family
from weber.memory.load import load_predictor
from weber.memory.run import build_run
from weber.objective.flow import build_noisy, build_target, draw_noise
from weber.objective.losses import build_losses

CPU = torch.device("cpu")
LIBRARY_TARGETS = ["to_q", "to_k", "to_v", "to_out.0", "add_q_proj", "add_k_proj", "add_v_proj", "to_add_out", "proj_mlp", "proj_out"]
LIBRARY_TARGETS += ["ff.net.0.proj", "ff.net.2", "ff_context.net.0.proj", "ff_context.net.2"]


def test_noisy_latents_lie_on_the_line() -> None:
    latents, noise = torch.full((3, 1, 2, 2), 2.0), torch.full((3, 1, 2, 2), -4.0)
    noisy = build_noisy(latents, noise, torch.tensor([0.0, 0.25, 1.0]))
    assert [one.unique().tolist() for one in noisy] == [[2.0], [0.5], [-4.0]]


def test_noise_is_drawn_per_sample_and_is_standard_normal() -> None:
    latents = torch.zeros(3, 16, 24, 24)
    together = draw_noise(latents, [1, 2, 3])
    alone = [draw_noise(latents[:1], [seed]) for seed in (1, 2, 3)]
    assert torch.equal(together, torch.cat(alone))
    assert together.dtype == torch.float32
    assert abs(together.mean().item()) < 4 / together.numel() ** 0.5
    assert abs(together.var().item() - 1) < 4 * (2 / together.numel()) ** 0.5


def test_noise_is_fp32_whatever_the_latents_are() -> None:
    assert draw_noise(torch.zeros(1, 2, 4, 4, dtype=torch.bfloat16), [1]).dtype == torch.float32


def test_the_target_is_the_velocity_of_the_line() -> None:
    latents, noise = torch.full((1, 1, 2, 2), 2.0), torch.full((1, 1, 2, 2), -4.0)
    later, now = (build_noisy(latents, noise, torch.tensor([t])) for t in (0.75, 0.25))
    assert torch.equal(build_target(latents, noise), (later - now) / 0.5)


def test_losses_are_means_per_sample() -> None:
    latents, noise = torch.zeros(2, 1, 2, 2), torch.tensor([1.0, 3.0]).view(2, 1, 1, 1).expand(2, 1, 2, 2)
    losses = build_losses(torch.zeros_like(latents), build_target(latents, noise), torch.tensor([0.5, 0.5]), config=ObjectiveConfig())
    assert losses.tolist() == [1.0, 9.0]


def test_the_error_is_taken_in_fp32() -> None:
    """A bf16 velocity is compared with the unrounded target."""
    velocity, target = torch.ones(1, 1, 1, 1, dtype=torch.bfloat16), torch.full((1, 1, 1, 1), 1.001)
    losses = build_losses(velocity, target, torch.tensor([0.5]), config=ObjectiveConfig())
    assert losses.dtype == torch.float32
    assert losses.item() == pytest.approx(1e-6, rel=1e-3)


def _predict_losses(predict: Callable[..., Tensor], inputs: tuple[Tensor, Tensor, Tensor, dict[str, Tensor]]) -> Tensor:
    """What a step does, by default."""
    latents, noise, t, condition = inputs
    velocity = predict(build_noisy(latents, noise, t), t, condition)
    return build_losses(velocity, build_target(latents, noise), t, config=ObjectiveConfig())


def _draw_inputs(*, has_guidance: bool) -> tuple[Tensor, Tensor, Tensor, dict[str, Tensor]]:
    generator = torch.Generator().manual_seed(4)
    condition = {"text": torch.randn(2, 9, 32, generator=generator), "pooled": torch.randn(2, 32, generator=generator)}
    if has_guidance:
        condition["guidance"] = torch.tensor([1.0, 3.5])
    latents, noise = (torch.randn(2, 16, 6, 10, generator=generator) for _ in range(2))
    return latents, noise, torch.tensor([0.13, 0.77]), condition


def _fill(parameters: Mapping[str, torch.nn.Parameter]) -> None:
    """The same random A and B by module name, whoever made the adapter."""
    for position, name in enumerate(sorted(parameters)):
        generator = torch.Generator().manual_seed(position)
        parameters[name].data = 0.2 * torch.randn(parameters[name].shape, generator=generator)


def _compute_reference(folder: Path, *, rank: int, alpha: float) -> tuple[Tensor, dict[str, Tensor]]:
    """Loss and gradients by the plain loop of diffusers' own training scripts."""
    transformer = FluxTransformer2DModel.from_pretrained(folder / "transformer")
    transformer.requires_grad_(False)
    transformer.add_adapter(LoraConfig(r=rank, lora_alpha=alpha, target_modules=LIBRARY_TARGETS))
    parameters = {name: parameter for name, parameter in transformer.named_parameters() if parameter.requires_grad}
    _fill(parameters)
    x0, noise, t, condition = _draw_inputs(has_guidance=transformer.config.guidance_embeds)
    sigmas = t[:, None, None, None]
    noisy = (1.0 - sigmas) * x0 + sigmas * noise
    batch, channels, height, width = noisy.shape
    prediction = transformer(
        hidden_states=FluxPipeline._pack_latents(noisy, batch, channels, height, width),
        timestep=t,
        guidance=condition.get("guidance"),
        pooled_projections=condition["pooled"],
        encoder_hidden_states=condition["text"],
        txt_ids=torch.zeros(9, 3),
        img_ids=FluxPipeline._prepare_latent_image_ids(batch, height // 2, width // 2, CPU, torch.float32),
        return_dict=False,
    )[0]
    target = FluxPipeline._pack_latents(noise - x0, batch, channels, height, width)
    loss = torch.nn.functional.mse_loss(prediction.float(), target.float())
    loss.backward()
    return loss.detach(), {name: parameter.grad for name, parameter in parameters.items() if parameter.grad is not None}


@pytest.mark.parametrize("gradient_checkpointing", [False, True])
@pytest.mark.parametrize(("model", "rank", "alpha"), [("tiny_model", 4, 4.0), ("tiny_model", 2, 5.0), ("tiny_schnell", 4, 1.0)])
def test_loss_and_gradients_equal_diffusers_and_peft(
    model: str, rank: int, alpha: float, gradient_checkpointing: bool, request: pytest.FixtureRequest
) -> None:
    folder: Path = request.getfixturevalue(model)
    family = build_family(ModelConfig(path=str(folder)))
    predictor = load_predictor(family, device=CPU, dtype=torch.float32)
    predictor.run = build_run(MemoryConfig(gradient_checkpointing="all" if gradient_checkpointing else "none"), predictor, family=family)
    modules = list_targets(predictor.transformer, "all+ffs", sets=ADAPTER_TARGETS)
    parameters = dict(build_lora(predictor.transformer, AdapterConfig(rank=rank, alpha=alpha), modules=modules, seed=0))
    _fill(parameters)
    losses = _predict_losses(predictor, _draw_inputs(has_guidance=model == "tiny_model"))
    losses.mean().backward()

    loss, gradients = _compute_reference(folder, rank=rank, alpha=alpha)
    assert loss > 0.5
    assert losses.mean().item() == pytest.approx(loss.item(), rel=1e-5)
    assert parameters.keys() == gradients.keys()
    assert len(gradients) == 46
    for name, gradient in gradients.items():
        ours = parameters[name].grad
        assert ours is not None
        scale = gradient.abs().max().item()
        assert scale > 0, name
        assert (ours - gradient).abs().max().item() <= 1e-5 * max(scale, 1e-3), name


def test_the_loss_of_a_fixed_draw_is_pinned(tiny_model: Path) -> None:
    """The tiny model's bytes are made from a seed, so its loss is the same number for ever."""
    family = build_family(ModelConfig(path=str(tiny_model)))
    predictor: Callable[..., Tensor] = load_predictor(family, device=CPU, dtype=torch.float32)
    with torch.no_grad():
        losses = _predict_losses(predictor, _draw_inputs(has_guidance=True))
    assert losses.tolist() == pytest.approx([2.2286649, 2.4680791], rel=1e-4)
