"""What the network is asked for one micro-batch: the noisy latents, all that it is told, and the answer that is wanted.

Legend: B batch, C latent channels, H W latent size.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from weber.data.seeds import build_seed, draw_uniform
from weber.families.family import list_references
from weber.objective.flow import build_noisy, build_target, draw_noise
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


def build_question(learner: Learner, batch: Batch, t_B: Tensor, *, step: int) -> Question:
    """What is asked for these samples at these noise levels; the noise is a function of the seed, the step and the place."""
    seed, latents_BCHW = learner.config.train.seed, batch.latents_BCHW
    noise_BCHW = draw_noise(latents_BCHW, [build_seed(seed, step, place, "noise") for place in batch.places])
    condition = _build_condition(learner, batch, t_B)
    return Question(build_noisy(latents_BCHW, noise_BCHW, t_B), t_B, condition, build_target(latents_BCHW, noise_BCHW))


def draw_timesteps(learner: Learner, batches: Sequence[Batch], *, step: int) -> list[Tensor]:
    """The noise levels (B,) fp32 of every micro-batch of a step."""
    seed, objective = learner.config.train.seed, learner.config.objective
    levels = []
    for batch in batches:
        shift = learner.family.shift(learner.family.num_tokens(*batch.latents_BCHW.shape[-2:]))
        uniforms = [draw_uniform(seed, step, place, "timestep") for place in batch.places]
        levels.append(build_timesteps(objective, uniforms, token_shift=shift).to(batch.latents_BCHW.device))
    return levels


def _build_condition(learner: Learner, batch: Batch, t_B: Tensor) -> dict[str, Tensor]:
    """All that the network is told, beside what the encoders made."""
    condition = batch.condition
    if learner.guidance is not None:
        condition = condition | {"guidance": torch.full_like(t_B, learner.guidance)}
    if learner.config.objective.reference_timestep == "zero" and list_references(condition):
        condition = condition | {"reference_t": torch.zeros_like(t_B)}
    return condition
