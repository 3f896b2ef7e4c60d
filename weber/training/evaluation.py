"""The loss on pictures that are held out, and on some that are learned: always the same pictures, captions, noise levels and noise, so that
it moves only because the weights do. It is that of training (`question`, `objective.losses`), and draws nothing of its own."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import replace

import torch

from weber.data.examples import Example
from weber.data.seeds import build_seed
from weber.objective.losses import build_losses
from weber.optim.libraries import evaluated
from weber.planning.evaluation import choose_caption
from weber.progress import Progress
from weber.track.scores import EMPTY, HELD_OUT, LEARNED, name_level
from weber.training.batch import Batch, Fixed
from weber.training.learner import Learner
from weber.training.mean import averaged
from weber.training.prepared import Training
from weber.training.question import build_question

_WHAT = "evaluating"


def evaluate(training: Training, progress: Progress) -> dict[str, float]:
    """The mean loss of each part by its name, and at each noise level; nothing where no picture is held out. The network is left as it was
    found, in training mode or not."""
    measured, learner, levels = training.plan.measured, training.learner, training.plan.resolved.evaluation.levels
    if not measured.held_out:
        return {}
    parts: dict[str, Sequence[Example]] = {HELD_OUT: measured.held_out, LEARNED: measured.learned}
    parts |= {EMPTY: measured.held_out} if measured.has_captions else {}
    parts = {part: examples for part, examples in parts.items() if examples}
    total, done, numbers = sum(map(len, parts.values())), 0, dict[str, float]()
    with _at_rest(training):
        for part, examples in parts.items():
            rows = []
            for example in examples:
                progress(_WHAT, done, total)
                batch = training.loader.load_measured(example, None if part == EMPTY else choose_caption(example))
                rows.append(_measure(learner, batch, example, levels=levels))
                done += 1
            numbers |= _average(part, rows, levels)
    progress(_WHAT, total, total)
    return numbers


def identify(training: Training) -> str:
    """A name for all that is measured beside the weights: numbers of others are not to be compared."""
    measured, config = training.plan.measured, training.plan.resolved.evaluation
    shown = [(one.content, one.target(0).describe(), one.caption(choose_caption(one))) for one in (*measured.held_out, *measured.learned)]
    return f"{build_seed(repr(shown), len(measured.held_out), repr(sorted(config.levels)), config.weights):016x}"


def _measure(learner: Learner, batch: Batch, example: Example, *, levels: Sequence[float]) -> list[float]:
    """The loss of a picture at each level."""
    losses = []
    for level in levels:
        t_B = torch.full((1,), level, device=batch.latents_BCHW.device)
        asked = replace(batch, fixed=Fixed((build_seed("evaluation", example.content, f"{level:g}"),)))
        question = build_question(learner, asked, t_B=t_B, step=0)
        velocity_BCHW = learner.predictor(question.noisy_BCHW, t_B, question.condition)
        target_BCHW, objective = question.target_BCHW, learner.config.objective
        losses.append(build_losses(velocity_BCHW, target_BCHW, t_B, config=objective, mask_B1HW=batch.mask_B1HW))
    found: list[float] = torch.cat(losses).tolist()
    return found


def _average(part: str, rows: Sequence[Sequence[float]], levels: Iterable[float]) -> Mapping[str, float]:
    """The means over the pictures of a part, at each level and of all."""
    means = [sum(column) / len(rows) for column in zip(*rows, strict=True)]
    named = {name_level(part, level): mean for level, mean in zip(levels, means, strict=True)}
    return {part: sum(means) / len(means)} | ({} if part == EMPTY else named)


@contextmanager
def _at_rest(training: Training) -> Iterator[None]:
    """Without dropout and gradients, with the weights that the settings name."""
    learner, transformer = training.learner, training.learner.predictor.transformer
    ema = learner.ema if training.plan.resolved.evaluation.weights == "ema" else None
    was_training = transformer.training
    with torch.no_grad(), evaluated(learner.optimizer), averaged(ema, learner.swap):
        transformer.eval()
        try:
            yield
        finally:
            transformer.train(was_training)
