"""The same step in several processes, each with its own micro-batches: losses, gradients and weights are those of one process, bit for bit.

Legend: B batch, N samples of the step.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import replace
from itertools import groupby
from typing import Any, NamedTuple

import torch
from torch import Tensor

from weber.data.seeds import build_seed
from weber.errors import CacheError
from weber.memory.beside import Fetched
from weber.objective.losses import build_losses
from weber.training.batch import Batch, Loader
from weber.training.follow import Started
from weber.training.learner import Learner
from weber.training.outcome import Outcome
from weber.training.question import build_question, draw_timesteps
from weber.training.step import measure_gradient, move_weights
from weber.training.stop import Stop


class Part(NamedTuple):
    """A micro-batch, or a part of one: the places of its samples in the step, and how often the network is asked before it learns."""

    places: list[int]
    num_passes: int


Rounds = Sequence[Sequence[Sequence[Part]]]
"""Of each round and process its micro-batch, or the parts of it."""


def start_step_together(learner: Learner, loader: Loader, *, step: int, stop: Stop) -> Started:
    """See `start_step`, which does this in one process; all processes call it at once.

    Micro-batches are dealt out in rounds: each process has one of a round, or parts of it where its samples cannot be stacked. Raises
    what is wrong with one of them in process 0, and Undone in others, before anything is changed.
    """
    crew, error, batches = learner.crew, None, list[Batch]()
    assert crew is not None
    if crew.mover is not None and crew.mover.was_alone and learner.swap is not None:
        learner.swap.settle(forgets=True)
        crew.mover.was_alone = False
    try:
        batches += loader.load(step)
    except CacheError as found:
        error = found
    told = crew.world.agree(error, stop=stop.asked, parts=[(batch.number, batch.places, _is_asked_twice(batch)) for batch in batches])
    if any(one["stop"] for one in told):
        stop.say()

    num_samples, rounds, is_there = len(loader.dealt.list_samples(step)), _list_rounds(told), iter(batches)
    levels = draw_timesteps(learner, batches, step=step, places=loader.dealt.list_asked(step))
    loader.read_ahead(step + 1)
    t_of = {id(batch): t_B for batch, t_B in zip(batches, levels, strict=True)}
    losses, plain = list[Tensor](), list[Tensor]()
    for one in rounds:
        most = max(map(len, one))
        for turn in range(most):
            now = {rank: parts[turn] for rank, parts in enumerate(one) if turn < len(parts)}
            num_passes, ranks = max(part.num_passes for part in now.values()), list(now)
            crew.begin(ranks, turn=turn, is_last=turn == most - 1)
            if crew.world.rank in now:
                batch = next(is_there)
                _pass_by(learner, batch, step=step, times=num_passes - now[crew.world.rank].num_passes)
                found_B, plain_B = _learn(learner, batch, t_of[id(batch)], step=step, num_samples=num_samples)
                losses.append(found_B)
                plain.append(plain_B)
            elif crew.mover is not None:
                _learn_nothing(learner, loader, batches, step=step, num_passes=num_passes)
            if crew.mover is not None and learner.swap is not None:
                learner.swap.finish()
            crew.take(ranks, turn=turn, is_last=turn == most - 1)
    if learner.swap is not None and learner.swap.is_trained:
        learner.swap.settle()
    crew.finish()

    rows_N3 = _gather(learner, [losses, plain, levels], rounds=rounds)
    if learner.health is not None:
        learner.health.note(rows_N3[:, 0])
    norm = crew.measure_gradient() if crew.owners else measure_gradient(learner)
    outcome = _fetch(learner, loader, rows_N3, norm=norm, step=step, rounds=rounds)
    if learner.health is None:
        outcome.read()
    move_weights(learner, norm)
    if learner.ema is not None:
        learner.ema.update(step, is_finite=learner.is_finite)
    return Started(batches, outcome)


def _learn(learner: Learner, batch: Batch, t_B: Tensor, *, step: int, num_samples: int) -> tuple[Tensor, Tensor]:
    """Forward and backward for one micro-batch; the loss of each sample, with its weight and without."""
    config = learner.config
    if config.adapter.has_dropout:
        torch.manual_seed(build_seed(config.train.seed, step, batch.places[0], "dropout"))
    question = build_question(learner, batch, t_B=t_B, step=step)
    velocity_BCHW = learner.predictor(question.noisy_BCHW, t_B, question.condition)
    plain_B = build_losses(velocity_BCHW, question.target_BCHW, t_B, config=config.objective, mask_B1HW=batch.mask_B1HW)
    losses_B = plain_B if batch.weights_B is None else plain_B * batch.weights_B
    (losses_B.sum() / num_samples).backward()  # type: ignore[no-untyped-call]
    return losses_B.detach(), plain_B.detach()


def _learn_nothing(learner: Learner, loader: Loader, batches: Sequence[Batch], *, step: int, num_passes: int) -> None:
    """Run the blocks as the others do, which need this process's parts of them; no gradient of it is taken."""
    batch = batches[0] if batches else loader.read(step, slice(1))[0]
    _pass_by(learner, batch, step=step, times=num_passes)
    _ask_plainly(learner, batch, step=step).sum().backward()  # type: ignore[no-untyped-call]


@torch.no_grad()
def _pass_by(learner: Learner, batch: Batch, *, step: int, times: int) -> None:
    """Run the blocks while others ask the model without what is trained."""
    crew = learner.crew
    for _ in range(times if crew is not None and crew.mover is not None else 0):
        _ask_plainly(learner, batch, step=step)


def _ask_plainly(learner: Learner, batch: Batch, *, step: int) -> Tensor:
    plain = replace(batch, is_regularization=False, fixed=None)
    question = build_question(learner, plain, t_B=torch.full((len(batch.places),), 0.5, device=batch.latents_BCHW.device), step=step)
    return learner.predictor(question.noisy_BCHW, question.t_B, question.condition)


def _is_asked_twice(batch: Batch) -> bool:
    """Whether the model without what is trained has to be asked too."""
    return batch.is_regularization and (batch.fixed is None or batch.fixed.target_BCHW is None)


def _list_rounds(told: Sequence[Mapping[str, Any]]) -> Rounds:
    dealt = [
        [[Part(places, int(is_twice)) for _, places, is_twice in parts] for _, parts in groupby(one["parts"], key=lambda part: part[0])]
        for one in told
    ]
    return [[own[number] if number < len(own) else [] for own in dealt] for number in range(max(map(len, dealt)))]


def _list_places(rounds: Rounds) -> list[int]:
    """Places in the order in which one process would have come to them."""
    return [place for one in rounds for parts in one for part in parts for place in part.places]


def _gather(learner: Learner, columns: Sequence[Sequence[Tensor]], *, rounds: Rounds) -> Tensor:
    """Numbers (N, columns) fp32 of all samples of the step, in that order."""
    crew = learner.crew
    assert crew is not None
    own = [[place for one in rounds for part in one[rank] for place in part.places] for rank in range(crew.world.size)]
    most = max(map(len, own))
    mine = torch.zeros(most, len(columns), dtype=torch.float32, device=crew.world.device)
    for number, column in enumerate(columns):
        if column:
            mine[: len(own[crew.world.rank]), number] = torch.cat(list(column))
    rows = {place: rank * most + row for rank, places in enumerate(own) for row, place in enumerate(places)}
    return crew.world.gather(mine)[torch.tensor([rows[place] for place in _list_places(rounds)], device=mine.device)]


def _fetch(
    learner: Learner, loader: Loader, rows_N3: Tensor, *, norm: Tensor, step: int, rounds: Rounds
) -> Outcome:
    """What came of it, for all samples."""
    samples = loader.dealt.list_samples(step)
    found = [samples[place] for place in _list_places(rounds)]
    losses_N, plain_N, levels_N = (column.contiguous() for column in rows_N3.unbind(dim=1))
    kinds: dict[str, list[int]] = {}
    for row, one in enumerate(found):
        kinds.setdefault("loss_regularization" if one.is_regularization else "loss", []).append(row)
    numbers = {name: losses_N[torch.tensor(rows, device=losses_N.device)].mean() for name, rows in sorted(kinds.items())}
    numbers["grad_norm"] = norm
    fetched = Fetched(torch.cat([torch.stack([number.float() for number in numbers.values()]), plain_N, levels_N]))
    names, is_learned = [str(one.path) for one in found], [not one.is_regularization for one in found]
    return Outcome(step, names, is_learned, list(numbers), fetched, learner.optimizer, False, learner.config.memory.dtype == "fp32")
