"""Every optimizer in real runs: 20 steps in one go are 10, a checkpoint, and 10 more, bit for bit."""

from __future__ import annotations

import json
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file
from torch import Tensor

from tests.training.conftest import BuildRun, build_watcher
from weber.cache.store import Store
from weber.checkpoint.resume import Found
from weber.config.load import build_config
from weber.config.optim import OptimConfig
from weber.config.optimizers import FACTS
from weber.errors import ConfigError
from weber.optim.libraries import evaluated
from weber.optim.schedules import build_schedule, write_learning_rate
from weber.optim.table import OPTIMIZERS, build_optimizer
from weber.training.assemble import assemble, encode_cache, train
from weber.training.loop import Training
from weber.training.plan import Plan, build_plan
from weber.training.state import load_state, save_state
from weber.training.step import train_step

pytestmark = pytest.mark.filterwarnings("ignore::UserWarning")
HERE = [name for name in OPTIMIZERS if not FACTS[name].needs_gpu]
NUM_STEPS = 20
SMALL = {
    "adapter": {"rank": 2, "targets": ["single_transformer_blocks.0.attn.to_q"]},
    "data": [{"resolution": 64}],
    "train": {"steps": NUM_STEPS, "batch_size": 1},
    "output": {"save_every": 10},
}


class Runs:
    """One network on which one optimizer after the other learns, from the same start."""

    def __init__(self, plan: Plan, training: Training) -> None:
        self.plan, self.training = plan, training
        self.start = [parameter.detach().clone() for _, parameter in training.learner.parameters]

    def begin(self, name: str) -> Training:
        """With a fresh optimizer, at the start."""
        optim = OptimConfig(name=name).build_resolved("lora")
        with torch.no_grad():
            for (_, parameter), numbers in zip(self.training.learner.parameters, self.start, strict=True):
                parameter.copy_(numbers)
        parameters = [parameter for _, parameter in self.training.learner.parameters]
        optimizer = build_optimizer(parameters, optim, seed=self.plan.resolved.train.seed)
        config = self.training.learner.config.model_copy(update={"optim": optim})
        return replace(self.training, learner=replace(self.training.learner, config=config, optimizer=optimizer))


@pytest.fixture(scope="module")
def runs(tmp_path_factory: pytest.TempPathFactory, pictures: Path) -> Iterator[Runs]:
    """The pocket model with adapters on one layer, small pictures cached."""
    folder = tmp_path_factory.mktemp("optimizers")
    tree = {
        "model": {"variant": "pocket"},
        "memory": {"device": "cpu"},
        **SMALL,
        "data": [{"path": str(pictures), "resolution": 64}],
        "output": {"folder": str(folder / "run"), "cache": str(folder / "cache")},
    }
    watcher, _ = build_watcher()
    plan = build_plan(build_config(tree))
    store = Store(plan.resolved.output.cache)
    encode_cache(plan, store, watcher=watcher)
    training = assemble(plan, store, start=Found(0, None, {}), watcher=watcher)
    with training.loader:
        yield Runs(plan, training)


def _go(training: Training, start: int, stop: int) -> None:
    for step in range(start, stop):
        write_learning_rate(training.learner.optimizer, build_schedule(training.learner.config.optim, num_steps=NUM_STEPS)(step))
        train_step(training.learner, training.loader.load(step), step=step)


def _copy(training: Training) -> list[Tensor]:
    return [parameter.detach().clone() for _, parameter in training.learner.parameters]


@pytest.mark.parametrize("name", HERE)
def test_ten_and_ten_are_twenty(name: str, runs: Runs, tmp_path: Path) -> None:
    training = runs.begin(name)
    _go(training, 0, 10)
    saved = save_state(tmp_path, training.learner, plan=runs.plan, step=10)
    _go(training, 10, 20)
    whole = _copy(training)

    training = runs.begin(name)
    load_state(saved, training.learner, plan=runs.plan)
    _go(training, 10, 20)
    assert all(torch.equal(one, other) for one, other in zip(whole, _copy(training), strict=True))
    assert any(not torch.equal(one, other) for one, other in zip(whole, runs.start, strict=True))
