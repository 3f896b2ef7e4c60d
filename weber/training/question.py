"""What the network is asked for one micro-batch: the noisy latents, all that it is told, and the answer that is wanted.

Legend: B batch, C latent channels, H W latent size.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import torch
from torch import Tensor
from torch.nn import functional

from weber.config.run import RunConfig
from weber.data.seeds import build_seed, draw_order, draw_uniform
from weber.families.family import list_references
from weber.families.route import ROUTE_KEPT, ROUTE_SCORES
from weber.memory.beside import send
from weber.objective.flow import build_noisy, build_target, draw_noise
from weber.objective.rollout import build_probability, build_return, draw_num_steps, predict_rollout
from weber.objective.timesteps import build_timesteps
from weber.training.batch import Batch
from weber.training.learner import Learner


@dataclass(frozen=True)
class Question:
    """noisy (B, C, H, W) at noise levels t (B,) fp32, the condition, and the velocity that is wanted (B, C, H, W) fp32."""

    noisy_BCHW: Tensor
    t_B: Tensor
    condition: dict[str, Tensor]
    target_BCHW: Tensor


def build_question(learner: Learner, batch: Batch, *, t_B: Tensor, step: int) -> Question:
    """What is asked for these samples at these noise levels; the noise is a function of the seed, the step and the place."""
    latents_BCHW = batch.latents_BCHW
    seeds = [build_seed(*origin, "noise") for origin in _list_origins(learner, batch, step=step)]
    noise_BCHW = send(draw_noise(latents_BCHW, seeds), latents_BCHW.device)
    condition = _build_condition(learner, batch, t_B, step=step)
    noisy_BCHW, target_BCHW = build_noisy(latents_BCHW, noise_BCHW, t_B), build_target(latents_BCHW, noise_BCHW)
    num_steps = _draw_rollout(learner, batch, t_B, step=step)
    if any(num_steps):
        noisy_BCHW, target_BCHW = _predict_rollout(learner, batch, noise_BCHW, t_B, condition=condition, num_steps=num_steps)
    condition = condition | _draw_route(learner, batch, step=step)
    if batch.is_regularization:
        target_BCHW = _ask_teacher(learner, batch, noisy_BCHW, t_B, condition=condition)
    return Question(noisy_BCHW, t_B, condition, target_BCHW)


def draw_timesteps(learner: Learner, batches: Sequence[Batch], *, step: int, places: Sequence[int] | None = None) -> list[Tensor]:
    """The noise levels (B,) fp32 of every micro-batch of a step. `places`: of all samples whose level is drawn, None: of those here."""
    if places is None:
        places = [place for batch in batches if batch.fixed is None for place in batch.places]
    uniforms = draw_uniforms(learner.config, places, step=step)
    levels = []
    for batch in batches:
        shift = learner.family.shift(learner.family.num_tokens(*batch.latents_BCHW.shape[-2:]))
        fed = [uniforms[place] for place in batch.places] if batch.fixed is None else batch.fixed.levels
        drawn = build_timesteps(learner.config.objective, fed, token_shift=shift)
        levels.append(send(drawn, batch.latents_BCHW.device))
    return levels


def _list_origins(learner: Learner, batch: Batch, *, step: int) -> list[tuple[int, ...]]:
    """What the noise and the guidance of each sample are drawn from."""
    if batch.fixed is not None:
        return [(seed,) for seed in batch.fixed.seeds]
    return [(learner.config.train.seed, step, place) for place in batch.places]


def _ask_teacher(learner: Learner, batch: Batch, noisy_BCHW: Tensor, t_B: Tensor, *, condition: Mapping[str, Tensor]) -> Tensor:
    """What the model says without what is trained, which is told the same, as far as that is not itself trained."""
    if batch.fixed is not None and batch.fixed.target_BCHW is not None:
        return batch.fixed.target_BCHW
    assert learner.teacher is not None
    return learner.teacher.ask(noisy_BCHW, t_B, condition={**condition, **batch.condition})


def draw_uniforms(config: RunConfig, places: Sequence[int], *, step: int) -> dict[int, float]:
    """What the law of noise levels is fed for each place of a step.

    Stratified, the range 0..1 is cut into as many parts as there are samples and each draws within one of its own, so that each sees
    the same law as before. Of a list in a cycle each place of each step is a turn.
    """
    seed, objective, num = config.train.seed, config.objective, len(places)
    if objective.timesteps == "list" and objective.timestep_order == "cycle":
        group, length = config.train.batch_size * config.train.accumulation, len(objective.timestep_list)
        return {place: ((step * group + place) % length + 0.5) / length for place in places}
    uniforms = {place: draw_uniform(seed, step, place, "timestep") for place in places}
    if not objective.stratified:
        return uniforms
    order = draw_order(num, seed, step, "strata")
    return {place: (part + uniforms[place]) / num for place, part in zip(sorted(places), order.tolist(), strict=True)}


def _build_condition(learner: Learner, batch: Batch, t_B: Tensor, *, step: int) -> dict[str, Tensor]:
    """All that the network is told: what the encoders made, or one that learns makes now, and more."""
    condition, between = batch.condition, learner.config.objective.guidance_range
    if learner.text is not None:
        condition = condition | learner.text.encode(batch.captions)
    if between is not None:
        low, high = between
        drawn = [draw_uniform(*origin, "guidance") for origin in _list_origins(learner, batch, step=step)]
        condition = condition | {"guidance": send(torch.tensor([low + (high - low) * one for one in drawn]), t_B.device)}
    elif learner.guidance is not None:
        condition = condition | {"guidance": torch.full_like(t_B, learner.guidance)}
    if learner.config.objective.reference_timestep == "zero" and list_references(condition):
        condition = condition | {"reference_t": torch.zeros_like(t_B)}
    return condition


def _draw_route(learner: Learner, batch: Batch, *, step: int) -> dict[str, Tensor]:
    """Which tokens skip blocks, for all samples of the batch; those within a mask for the loss never do. What the model is held to or
    measured by, and what it paints itself, takes no route."""
    latents_BCHW = batch.latents_BCHW
    if not learner.predictor.routes or batch.is_asked_plainly:
        return {}
    height, width = latents_BCHW.shape[-2:]
    num_tokens = learner.family.num_tokens(height, width)
    generator = torch.Generator().manual_seed(build_seed(learner.config.train.seed, step, batch.places[0], "route"))
    found = {ROUTE_SCORES: send(torch.rand(num_tokens, generator=generator), latents_BCHW.device)}
    if batch.mask_B1HW is not None:
        edge = math.isqrt(height * width // num_tokens)
        found[ROUTE_KEPT] = functional.max_pool2d(batch.mask_B1HW.amax(dim=0), edge).flatten() > 0
    return found


def _draw_rollout(learner: Learner, batch: Batch, t_B: Tensor, *, step: int) -> list[int]:
    """How many of the network's own steps lead to the input of each sample, 0 for none.

    Below one step's size an error of the input would count many times in the velocity that is wanted; before pure noise is no step.
    """
    config, seed = learner.config.objective.rollout, learner.config.train.seed
    if config is None or batch.is_asked_plainly:
        return [0] * len(batch.places)
    probability = build_probability(config, step)
    return [
        draw_num_steps(config, draw_uniform(seed, step, place, "rollout steps"))
        if config.step_size <= t < 1 and draw_uniform(seed, step, place, "rollout") < probability
        else 0
        for place, t in zip(batch.places, t_B.tolist(), strict=True)
    ]


def _predict_rollout(
    learner: Learner, batch: Batch, noise_BCHW: Tensor, t_B: Tensor, *, condition: Mapping[str, Tensor], num_steps: Sequence[int]
) -> tuple[Tensor, Tensor]:
    """Input and wanted velocity (B, C, H, W) with the network's own steps; without dropout, as in the sampler."""
    config, latents_BCHW, transformer = learner.config.objective.rollout, batch.latents_BCHW, learner.predictor.transformer
    assert config is not None
    transformer.eval()
    x_BCHW = predict_rollout(
        learner.predictor,
        latents_BCHW,
        noise_BCHW,
        t_B,
        condition=condition,
        num_steps=num_steps,
        step_size=config.step_size,
    )
    transformer.train()
    is_moved = torch.tensor(num_steps, device=t_B.device).view(-1, 1, 1, 1) > 0
    straight_BCHW = build_target(latents_BCHW, noise_BCHW)
    return x_BCHW, torch.where(is_moved, build_return(x_BCHW, latents_BCHW, t_B), straight_BCHW)
