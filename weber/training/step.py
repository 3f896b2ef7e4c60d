"""One optimizer step, top to bottom."""

from __future__ import annotations

import math
from collections.abc import Sequence
from contextlib import nullcontext

import torch
from torch import Tensor, nn

from weber.data.seeds import build_seed
from weber.errors import TrainingError
from weber.objective.losses import build_losses
from weber.training.batch import Batch
from weber.training.learner import Learner
from weber.training.question import build_question, draw_timesteps


def train_step(learner: Learner, batches: Sequence[Batch], *, step: int) -> dict[str, float]:
    """Forward, backward and update for the micro-batches of one step; returns losses and gradient norm.

    Each sample weighs the same, however the step is cut into micro-batches, but for the weight of its set. `loss` is the mean over the
    samples that are learned, `loss_regularization` over the others; each is there if the step has such samples. Raises TrainingError,
    before anything is changed, where the loss or the gradient is not finite; a fused step leaves only those weights as they were whose
    own gradient is not.
    """
    config = learner.config
    num_samples = sum(len(batch.places) for batch in batches)
    losses = []
    for batch, t_B in zip(batches, draw_timesteps(learner, batches, step=step), strict=True):
        if config.adapter.has_dropout:
            torch.manual_seed(build_seed(config.train.seed, step, batch.places[0], "dropout"))
        question = build_question(learner, batch, t_B=t_B, step=step)
        velocity_BCHW = learner.predictor(question.noisy_BCHW, t_B, question.condition)
        losses_B = build_losses(velocity_BCHW, question.target_BCHW, t_B, config=config.objective, mask_B1HW=batch.mask_B1HW)
        if batch.weights_B is not None:
            losses_B = losses_B * batch.weights_B
        losses.append(losses_B.detach())
        if learner.fused is not None:
            _check_finite(learner, "loss", float(losses_B.detach().sum()), step, batches)
        with nullcontext() if learner.fused is None else learner.fused.step(is_last=len(losses) == len(batches)):
            (losses_B.sum() / num_samples).backward()  # type: ignore[no-untyped-call]

    numbers = _list_losses(batches, losses)
    _check_finite(learner, "loss", sum(numbers.values()), step, batches)
    grad_norm = _move(learner, step, batches) if learner.fused is None else learner.fused.norm()
    _check_finite(learner, "gradient norm", grad_norm, step, batches)
    if learner.swap is not None and learner.swap.is_trained:
        learner.swap.settle()
    if learner.ema is not None:
        learner.ema.update(step)
    return numbers | {"grad_norm": grad_norm}


def _list_losses(batches: Sequence[Batch], losses: Sequence[Tensor]) -> dict[str, float]:
    """The mean over the samples that are learned, and over those that the model is kept as it is on."""
    kinds: dict[str, list[Tensor]] = {}
    for batch, losses_B in zip(batches, losses, strict=True):
        kinds.setdefault("loss_regularization" if batch.is_regularization else "loss", []).append(losses_B)
    return {name: float(torch.cat(found).mean()) for name, found in sorted(kinds.items())}


def _move(learner: Learner, step: int, batches: Sequence[Batch]) -> float:
    """Clip all gradients together and update all parameters; returns the norm before."""
    gradients = [parameter.grad for _, parameter in learner.parameters if parameter.grad is not None]
    grad_norm = float(nn.utils.get_total_norm(gradients))
    _check_finite(learner, "gradient norm", grad_norm, step, batches)
    limit = learner.config.optim.norm_limit
    if limit is not None and grad_norm > limit:
        torch._foreach_mul_(gradients, limit / grad_norm)
    learner.optimizer.step()
    learner.optimizer.zero_grad()
    return grad_norm


def _check_finite(learner: Learner, what: str, value: float, step: int, batches: Sequence[Batch]) -> None:
    if math.isfinite(value):
        return
    learner.optimizer.zero_grad()
    names = [name for batch in batches for name in batch.names]
    is_late = what != "loss" and learner.fused is not None
    raise TrainingError(
        f"The {what} of step {step + 1} is not finite; training stopped "
        + ("with those weights unmoved whose gradient was not; others moved." if is_late else "before anything was changed."),
        got=f"{what} = {value} for {', '.join(names)}",
        expected="a finite number",
        fix="look at these pictures and captions" + ("" if learner.config.memory.dtype == "fp32" else '; or set memory.dtype = "fp32"'),
    )
