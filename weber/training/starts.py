"""Where a fresh run's adapters start, if that depends on the model or on the pictures. A run that goes on has it in its checkpoint."""

from __future__ import annotations

from collections.abc import Iterator

import torch
from torch import Tensor, nn

from weber.adapters.starts import write_input_start, write_shifted_start
from weber.config.adapter import SHIFTED_STARTS
from weber.families.tensors import Weights
from weber.kinds.lora import read_computed
from weber.progress import Progress
from weber.training.batch import Loader
from weber.training.learner import Learner
from weber.training.question import build_question, draw_timesteps

NUM_STEPS = 4
"""First steps whose batches are looked at."""


def write_start(learner: Learner, loader: Loader, *, base: Weights, num_steps: int, progress: Progress) -> None:
    """Write what `adapter.init` says into adapters that were just made, before a step of the run's `num_steps` is done.

    `base`: the original weights.
    """
    init, transformer = learner.config.adapter.init, learner.predictor.transformer
    if init in SHIFTED_STARTS:
        layers = {name.replace(".base_layer", ""): one for name, one in transformer.named_modules() if isinstance(one, nn.Linear)}
        device = learner.parameters[0][1].device

        def read(name: str) -> tuple[Tensor, Tensor]:
            weight = base[f"{name}.weight"].read().to(device)
            return weight, read_computed(layers[name], weight) if init == "loftq" else weight

        write_shifted_start(transformer, init, read=read, progress=progress)
    elif init == "eva":
        write_input_start(transformer, _ask(learner, loader, num_steps=min(NUM_STEPS, num_steps), progress=progress))
    if learner.ema is not None:
        learner.ema.load_tensors({name: parameter.detach() for name, parameter in learner.parameters})


def _ask(learner: Learner, loader: Loader, *, num_steps: int, progress: Progress) -> Iterator[None]:
    """Ask the network what the first steps will ask it, one micro-batch after the other."""
    for step in range(num_steps):
        progress("looking at the first pictures", step, num_steps)
        batches = loader.load(step, is_whole=True)
        for batch, t_B in zip(batches, draw_timesteps(learner, batches, step=step), strict=True):
            with torch.no_grad():
                question = build_question(learner, batch, t_B=t_B, step=step)
                learner.predictor(question.noisy_BCHW, question.t_B, question.condition)
            yield
    progress("looking at the first pictures", num_steps, num_steps)
