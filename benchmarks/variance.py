"""How much less the loss of a step varies with `objective.stratified`.

    python benchmarks/variance.py [--steps 20000] [--noises 8] [--levels 48] [--threads 1]

The small model that comes with weber stays as it is. Its loss is taken for every picture of examples/, several draws of noise and a fine
grid of noise levels. Then the losses of many steps are put together from these numbers, by the pictures and noise levels that a run would
draw, with noise levels drawn each alone and with noise levels spread evenly. What is printed is the variance of the loss over the steps,
stratified divided by not. `noise levels alone`: pictures and noise are the same in all steps; `and noise`: the noise differs;
`and pictures`: these do too, as in a run.
"""

from __future__ import annotations

import argparse
import tempfile
from collections.abc import Sequence
from functools import partial
from pathlib import Path

import machine
import numpy as np
import torch
from numpy.typing import NDArray
from rich.console import Console

from weber.cache.store import Store
from weber.checkpoint.resume import Found
from weber.config.load import build_config
from weber.config.run import RunConfig
from weber.objective.flow import build_noisy, build_target, draw_noise
from weber.objective.losses import build_losses
from weber.objective.timesteps import build_timesteps
from weber.planning.plan import build_plan
from weber.track.progress import Watcher
from weber.training.assemble import assemble, encode_cache
from weber.training.batch import Batch
from weber.training.demo import find_examples
from weber.training.prepared import Training
from weber.training.question import draw_uniforms

GROUPS = (4, 8)
LAWS = ("sigmoid", "token_shift", "uniform")
BATCH = 8

Losses = NDArray[np.float64]
"""(pictures, noises, levels)"""


def build_options() -> argparse.ArgumentParser:
    parser = machine.build_parser(__doc__)
    parser.add_argument("--steps", type=partial(machine.read_count, at_least=2), default=20000, help="steps whose losses are compared")
    parser.add_argument("--noises", type=machine.read_count, default=8, help="draws of noise per picture")
    parser.add_argument("--levels", type=partial(machine.read_count, at_least=2), default=48, help="noise levels of the grid")
    return parser


def main(words: Sequence[str] | None = None) -> None:
    options = build_options().parse_args(words)
    machine.prepare(options)
    with tempfile.TemporaryDirectory(prefix="weber-variance-") as name:
        training = build_training(build_run(Path(name), {}))
        losses = measure_losses(training, num_noises=options.noises, num_levels=options.levels)
        print(f"{len(losses)} pictures, {options.noises} draws of noise, {options.levels} levels: mean loss {losses.mean():.3f}")
        print(f"variance of the loss over {options.steps} steps, stratified / not\n")
        print(f"{'law':12} {'group':>6} {'noise levels alone':>20} {'and noise':>12} {'and pictures':>14}")
        for law in LAWS:
            for group in GROUPS:
                ratios = [compare(training, losses, law=law, group=group, num_steps=options.steps, varied=varied) for varied in range(3)]
                print(f"{law:12} {group:6} {ratios[0]:20.3f} {ratios[1]:12.3f} {ratios[2]:14.3f}")


def build_run(folder: Path, objective: dict[str, object], *, group: int = BATCH) -> RunConfig:
    """The settings of a run."""
    return build_config(
        {
            "model": {"variant": "pocket"},
            "data": [{"path": str(find_examples())}],
            "memory": {"device": "cpu", "dtype": "fp32", "gradient_checkpointing": "none"},
            "objective": objective,
            "train": {"batch_size": group},
            "output": {"folder": str(folder / "run"), "cache": str(folder / "cache")},
        }
    )


def build_training(config: RunConfig) -> Training:
    """A run before its first step."""
    watcher = Watcher(Console(quiet=True))
    plan = build_plan(config)
    store = Store(config.output.cache)
    encode_cache(plan, store, watcher=watcher)
    return assemble(plan, store, start=Found(0, None, {}), watcher=watcher)


def build_levels(num: int) -> NDArray[np.float64]:
    """The grid of noise levels."""
    return np.linspace(0.005, 0.995, num)


def measure_losses(training: Training, *, num_noises: int, num_levels: int) -> Losses:
    """The loss of each picture of an epoch, with each of its draws of noise, at each level."""
    with training.loader:
        batches = [batch for step in range(training.plan.batches.steps_per_epoch) for batch in training.loader.load(step)]
    found = [
        [[_measure(training, batch, seed=noise, level=float(level)) for level in build_levels(num_levels)] for noise in range(num_noises)]
        for batch in batches
    ]
    return np.concatenate([np.array(one).transpose(2, 0, 1) for one in found])


@torch.no_grad()
def _measure(training: Training, batch: Batch, *, seed: int, level: float) -> list[float]:
    learner, x0 = training.learner, batch.latents_BCHW
    noise, t = draw_noise(x0, [1000 * seed + place for place in batch.places]), torch.full((len(x0),), level)
    velocity = learner.predictor(build_noisy(x0, noise, t), t, batch.condition | {"guidance": torch.ones(len(x0))})
    losses: list[float] = build_losses(velocity, build_target(x0, noise), t, config=learner.config.objective).tolist()
    return losses


def compare(training: Training, losses: Losses, *, law: str, group: int, num_steps: int, varied: int) -> float:
    """Variance stratified / not, over steps in which nothing but the levels varies, or noise does (1), or pictures do too (2)."""
    learner = training.learner
    bucket = training.plan.dataset.examples[0].bucket
    shift = learner.family.shift(learner.family.num_tokens(*learner.family.latent_shape(bucket.height, bucket.width)[1:]))
    variances, levels = [], build_levels(losses.shape[2])
    for is_stratified in (True, False):
        config = build_run(Path("nowhere"), {"timesteps": law, "stratified": is_stratified}, group=group)
        means = []
        for step in range(num_steps):
            random = np.random.default_rng(step)
            noises = random.integers(0, losses.shape[1], group) if varied >= 1 else np.zeros(group, dtype=int)
            pictures = random.choice(len(losses), group, replace=False) if varied == 2 else np.arange(group)
            uniforms = draw_uniforms(config, range(group), step=step)
            t = build_timesteps(config.objective, [uniforms[place] for place in range(group)], token_shift=shift).numpy()
            at = np.interp(t, levels, np.arange(len(levels)))
            low = np.minimum(at.astype(int), len(levels) - 2)
            before, after = losses[pictures, noises, low], losses[pictures, noises, low + 1]
            means.append(np.mean(before + (at - low) * (after - before)))
        variances.append(np.var(means))
    return float(variances[0] / variances[1])


if __name__ == "__main__":
    main()
