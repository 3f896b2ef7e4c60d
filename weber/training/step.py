"""One optimizer step, top to bottom."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from contextlib import nullcontext

import torch
from torch import Tensor, nn

from weber.data.seeds import build_seed
from weber.memory.beside import Fetched
from weber.objective.losses import build_losses
from weber.optim.skip import step_where
from weber.training.batch import Batch
from weber.training.learner import Learner
from weber.training.outcome import Outcome
from weber.training.question import build_question, draw_timesteps


def start_step(learner: Learner, batches: Sequence[Batch], *, step: int, meanwhile: Callable[[], None] | None = None) -> Outcome:
    """Forward, backward and update for the micro-batches of one step, as far as the host has to do with it. `meanwhile` is called before
    the first backward pass, to begin what is done beside it.

    Each sample weighs the same, however the step is cut into micro-batches, but for the weight of its set. A learner without `health` is
    asked before anything is changed, and raises TrainingError where the loss or the gradient is not finite. With it the device leaves out
    such a step and those after it; reading the outcome raises the error. A fused step leaves only those weights as they were whose own
    gradient is not finite.
    """
    config, health = learner.config, learner.health
    num_samples = sum(len(batch.places) for batch in batches)
    losses, plain, levels = [], [], draw_timesteps(learner, batches, step=step)
    for batch, t_B in zip(batches, levels, strict=True):
        if config.adapter.has_dropout:
            torch.manual_seed(build_seed(config.train.seed, step, batch.places[0], "dropout"))
        question = build_question(learner, batch, t_B=t_B, step=step)
        velocity_BCHW = learner.predictor(question.noisy_BCHW, t_B, question.condition)
        losses_B = build_losses(velocity_BCHW, question.target_BCHW, t_B, config=config.objective, mask_B1HW=batch.mask_B1HW)
        plain.append(losses_B.detach())
        if batch.weights_B is not None:
            losses_B = losses_B * batch.weights_B
        losses.append(losses_B.detach())
        if health is not None:
            health.note(losses[-1])
        elif learner.fused is not None:
            _fetch(learner, {"loss": losses[-1].sum()}, [], step=step, batches=batches).read()
        is_last, loss = len(losses) == len(batches), losses_B.sum() / num_samples
        with nullcontext() if learner.fused is None else learner.fused.step(is_last=is_last, is_finite=learner.is_finite):
            if meanwhile is not None and len(losses) == 1:
                meanwhile()
            loss.backward()  # type: ignore[no-untyped-call]

    norm = measure_gradient(learner)
    outcome = _fetch(learner, _list_losses(batches, losses) | {"grad_norm": norm}, [*plain, *levels], step=step, batches=batches)
    if health is None:
        outcome.read()
    if learner.fused is None:
        move_weights(learner, norm)
    if learner.swap is not None and learner.swap.is_trained:
        learner.swap.settle()
    if learner.ema is not None:
        learner.ema.update(step, is_finite=learner.is_finite)
    return outcome


def train_step(learner: Learner, batches: Sequence[Batch], *, step: int) -> dict[str, float]:
    """`start_step`, and what came of it: losses and gradient norm.

    `loss` is the mean over the samples that are learned, `loss_regularization` over the others; each is there if the step has such samples.
    """
    return start_step(learner, batches, step=step).read()


def _list_losses(batches: Sequence[Batch], losses: Sequence[Tensor]) -> dict[str, Tensor]:
    """The mean over the samples that are learned, and over those that the model is kept as it is on."""
    kinds: dict[str, list[Tensor]] = {}
    for batch, losses_B in zip(batches, losses, strict=True):
        kinds.setdefault("loss_regularization" if batch.is_regularization else "loss", []).append(losses_B)
    return {name: torch.cat(found).mean() for name, found in sorted(kinds.items())}


def measure_gradient(learner: Learner) -> Tensor:
    """The norm of all gradients together."""
    norm = nn.utils.get_total_norm(_list_gradients(learner)) if learner.fused is None else learner.fused.norm
    assert norm is not None
    if learner.health is not None:
        learner.health.note(norm)
    return norm


def move_weights(learner: Learner, norm: Tensor) -> None:
    """Clip all gradients together and update all parameters."""
    limit = learner.config.optim.norm_limit
    if limit is not None:
        if learner.health is not None:
            torch._foreach_mul_(_list_gradients(learner), (limit / norm).clamp(max=1))
        elif float(norm) > limit:
            torch._foreach_mul_(_list_gradients(learner), limit / float(norm))
    step_where(learner.optimizer, learner.is_finite)
    learner.optimizer.zero_grad()


def _list_gradients(learner: Learner) -> list[Tensor]:
    return [parameter.grad for _, parameter in learner.parameters if parameter.grad is not None]


def _fetch(
    learner: Learner, numbers: dict[str, Tensor], of_samples: Sequence[Tensor], *, step: int, batches: Sequence[Batch]
) -> Outcome:
    names = [name for batch in batches for name in batch.names]
    is_learned = [not batch.is_regularization for batch in batches for _ in batch.places]
    is_fused, is_fp32 = learner.fused is not None, learner.config.memory.dtype == "fp32"
    fetched = Fetched(torch.cat([torch.stack([number.float() for number in numbers.values()]), *of_samples]))
    return Outcome(step, names, is_learned, list(numbers), fetched, learner.optimizer, is_fused, is_fp32)
