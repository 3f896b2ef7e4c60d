"""One optimizer step, top to bottom.

Legend: B batch, C latent channels, H W latent size.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

import torch
from torch import nn

from weber.config.run import RunConfig
from weber.data.seeds import build_seed, draw_uniform
from weber.errors import TrainingError
from weber.families.family import Family, Predictor, list_references
from weber.objective.flow import draw_noise, predict_losses
from weber.objective.timesteps import build_timesteps
from weber.training.batch import Batch


@dataclass(frozen=True)
class Learner:
    """What a step needs: the network, what learns in it, and how it is moved."""

    config: RunConfig
    family: Family
    predictor: Predictor
    parameters: Sequence[tuple[str, nn.Parameter]]
    optimizer: torch.optim.Optimizer
    guidance: float | None


def train_step(learner: Learner, batches: Sequence[Batch], *, step: int) -> dict[str, float]:
    """Forward, backward and update for the micro-batches of one step; returns loss and gradient norm.

    Each sample weighs the same, however the step is cut into micro-batches. Raises TrainingError, before anything is changed, where
    the loss or the gradient is not finite.
    """
    seed, objective = learner.config.train.seed, learner.config.objective
    num_samples = sum(len(batch.places) for batch in batches)
    losses = []
    for batch in batches:
        latents_BCHW = batch.latents_BCHW
        shift = learner.family.shift(learner.family.num_tokens(*latents_BCHW.shape[-2:]))
        uniforms = [draw_uniform(seed, step, place, "timestep") for place in batch.places]
        t_B = build_timesteps(objective, uniforms, token_shift=shift).to(latents_BCHW.device)
        noise_seeds = [build_seed(seed, step, place, "noise") for place in batch.places]
        noise_BCHW = draw_noise(latents_BCHW, noise_seeds)
        condition = batch.condition
        if learner.guidance is not None:
            condition = condition | {"guidance": torch.full_like(t_B, learner.guidance)}
        if objective.reference_timestep == "zero" and list_references(condition):
            condition = condition | {"reference_t": torch.zeros_like(t_B)}
        if learner.config.adapter.dropout > 0:
            torch.manual_seed(build_seed(seed, step, batch.places[0], "dropout"))

        losses_B = predict_losses(learner.predictor, latents_BCHW, noise_BCHW, t_B, condition)
        (losses_B.sum() / num_samples).backward()  # type: ignore[no-untyped-call]
        losses.append(losses_B.detach())

    loss = float(torch.cat(losses).mean())
    if not math.isfinite(loss):
        learner.optimizer.zero_grad()
        raise _not_finite("loss", loss, step, batches)
    gradients = [parameter.grad for _, parameter in learner.parameters if parameter.grad is not None]
    grad_norm = float(nn.utils.get_total_norm(gradients))
    if not math.isfinite(grad_norm):
        learner.optimizer.zero_grad()
        raise _not_finite("gradient norm", grad_norm, step, batches)
    limit = learner.config.optim.clip_norm
    if limit != "off" and grad_norm > limit:
        torch._foreach_mul_(gradients, limit / grad_norm)
    learner.optimizer.step()
    learner.optimizer.zero_grad()
    return {"loss": loss, "grad_norm": grad_norm}


def _not_finite(what: str, value: float, step: int, batches: Sequence[Batch]) -> TrainingError:
    names = [name for batch in batches for name in batch.names]
    return TrainingError(
        f"The {what} of step {step + 1} is not finite; training stopped before anything was changed.",
        got=f"{what} = {value} for {', '.join(names)}",
        expected="a finite number",
        fix="look at these pictures and captions; lower optim.lr; or set memory.dtype = \"fp32\"",
    )
