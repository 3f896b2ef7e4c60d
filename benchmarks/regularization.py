"""What regularization is good for: a subject learned with and without it, and how far pictures of all else drift from the base model's.

    python benchmarks/regularization.py [--rows ROW ...] [--steps 100] [--lr 1e-3] [--seeds 1 2] [--paint-steps 12] [--threads 1]

The pocket model learns `zorb` at a high rate, alone or beside the 32 pictures of examples/fluent: as class images, which are learned too
(prior preservation), or with `regularization = true`. Each step has about as many pictures of zorb in every row. Each row (all, or those
that are named) is trained once per seed. Printed are means over the seeds, relative to the base model:

drift     of prompts that are neither of the subject nor among the captions, painted with pinned seeds: the distance of their latents
          from those of the base model, by the length of these (mean over the prompts); the lower the better
subject   the loss on the pictures of the subject, at pinned noise, by the base model's; the lower, the better it was learned
"""

from __future__ import annotations

import argparse
import io
import tempfile
import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import machine
import torch
from rich.console import Console
from torch import Tensor

from weber.cache.store import Store
from weber.checkpoint.resume import Found
from weber.config.load import build_config
from weber.objective.flow import build_noisy, build_target, draw_noise
from weber.optim.schedules import build_schedule, write_learning_rate
from weber.planning.plan import build_plan
from weber.progress import ignore_progress
from weber.sampling.validate import predict_paintings
from weber.track.progress import Watcher
from weber.training.assemble import assemble, encode_cache
from weber.training.batch import Reader
from weber.training.prepared import Training
from weber.training.step import train_step

EXAMPLES = Path(__file__).parents[1] / "examples"
PROMPTS = (
    "dog face, 3d fluent style",
    "guitar, 3d fluent style",
    "tomato, noto style",
    "spouting whale, noto style",
    "mushroom, 3d fluent style",
    "gem stone, noto style",
)
SUBJECT, OTHERS = {"path": str(EXAMPLES / "zorb"), "repeats": 3}, {"path": str(EXAMPLES / "fluent")}
ROWS: Mapping[str, tuple[Sequence[Mapping[str, Any]], Mapping[str, Any]]] = {
    "the subject alone": ([SUBJECT], {}),
    "class images": ([SUBJECT, OTHERS], {}),
    "regularization": ([SUBJECT, OTHERS | {"regularization": True}], {}),
    "regularization, teacher_draws = 4": ([SUBJECT, OTHERS | {"regularization": True}], {"teacher_draws": 4}),
}
LEVELS = (0.2, 0.5, 0.8)


@dataclass(frozen=True)
class Outcome:
    """Drift and loss on the subject, both relative to the base model, and what the training took; asking the teacher is in `before`."""

    drift: float
    subject: float
    seconds: float
    before: float


def build_options() -> argparse.ArgumentParser:
    parser = machine.build_parser(__doc__)
    parser.add_argument("--rows", nargs="+", choices=list(ROWS), default=list(ROWS), metavar="ROW", help=" | ".join(ROWS))
    parser.add_argument("--steps", type=machine.read_count, default=100, help="training steps per row")
    parser.add_argument("--lr", type=float, default=1e-3, help="learning rate")
    parser.add_argument("--seeds", type=int, nargs="+", default=[1, 2], help="seeds of the training")
    parser.add_argument("--paint-steps", type=machine.read_count, default=12, help="steps in which a prompt is painted")
    return parser


def main(words: Sequence[str] | None = None) -> None:
    options = build_options().parse_args(words)
    machine.prepare(options)
    print(f"{options.steps} steps at lr {options.lr:g}, means over the seeds {options.seeds}")
    with tempfile.TemporaryDirectory(prefix="weber-regularization-") as name:
        for row in options.rows:
            found = [
                measure(row, Path(name), seed=seed, num_steps=options.steps, lr=options.lr, num_paint_steps=options.paint_steps)
                for seed in options.seeds
            ]
            drift, subject, seconds, before = (
                sum(getattr(one, part) for one in found) / len(found) for part in ("drift", "subject", "seconds", "before")
            )
            print(f"{row:36} drift {drift:.3f}  subject {subject:.3f}  {seconds / options.steps:.2f} s per step, {before:.0f} s before")


def measure(row: str, folder: Path, *, seed: int, num_steps: int, lr: float, num_paint_steps: int) -> Outcome:
    """Train one row and compare."""
    sets, objective = ROWS[row]
    config = build_config(
        {
            "model": {"variant": "pocket"},
            "data": list(sets),
            "memory": {"device": "cpu", "gradient_checkpointing": "none"},
            "objective": dict(objective),
            "optim": {"lr": lr, "schedule": "cosine"},
            "train": {"steps": num_steps, "batch_size": 4 * len(sets), "seed": seed},
            "sampling": {"prompts": list(PROMPTS), "steps": num_paint_steps},
            "output": {"folder": str(folder / "run"), "cache": str(folder / "cache")},
        }
    )
    watcher, plan = Watcher(Console(file=io.StringIO())), build_plan(config)
    store = Store(config.output.cache)
    encode_cache(plan, store, watcher=watcher)
    start = time.perf_counter()
    training = assemble(plan, store, start=Found(0, None, {}), watcher=watcher)
    before, start = time.perf_counter() - start, time.perf_counter()
    rate = build_schedule(plan.resolved.optim, num_steps=num_steps)
    with training.loader as loader:
        for step in range(num_steps):
            write_learning_rate(training.learner.optimizer, rate(step))
            train_step(training.learner, loader.load(step), step=step)
    seconds = time.perf_counter() - start
    base, trained = (_predict(training, Reader(store, plan.encoders), strength) for strength in (0.0, 1.0))
    drift = sum(float((one - other).norm() / one.norm()) for one, other in zip(base[0], trained[0], strict=True)) / len(PROMPTS)
    return Outcome(drift, trained[1] / base[1], seconds, before)


@torch.no_grad()
def _predict(training: Training, reader: Reader, strength: float) -> tuple[list[Tensor], float]:
    """Latents of the prompts, and the loss on the subject."""
    plan, predictor, painter = training.plan, training.learner.predictor, training.painter
    predictor.transformer.eval()
    plan.kind.write_strength(predictor.transformer, strength)
    latents = predict_paintings(
        predictor,
        painter.paintings,
        sigmas=lambda shape: plan.family.sigmas(painter.num_steps, plan.family.num_tokens(*shape[1:])),
        device=plan.device,
        progress=ignore_progress,
    )
    losses = []
    for number, example in enumerate(one for one in plan.dataset.examples if one.set_name == "zorb"):
        picture_BCHW = reader.read_latents(example.target(0)).float().repeat(len(LEVELS), 1, 1, 1)
        told = {name: torch.stack([tensor] * len(LEVELS)) for name, tensor in reader.read_text(example.captions[0]).items()}
        t_B = torch.tensor(LEVELS)
        if training.learner.guidance is not None:
            told["guidance"] = torch.full_like(t_B, training.learner.guidance)
        noise_BCHW = draw_noise(picture_BCHW, [100 * number + level for level in range(len(LEVELS))])
        velocity = predictor(build_noisy(picture_BCHW, noise_BCHW, t_B), t_B, told)
        losses.append(float((velocity - build_target(picture_BCHW, noise_BCHW)).square().mean()))
    return latents, sum(losses)


if __name__ == "__main__":
    main()
