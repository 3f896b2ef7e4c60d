"""Every optimizer in real training: 20 steps in one go are 10, a checkpoint, and 10 more, bit for bit."""

from __future__ import annotations

import json
import shutil
from collections.abc import Iterator, Sequence
from contextlib import ExitStack
from dataclasses import replace
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file
from torch import Tensor, nn

from tests.runs import BuildRun, build_watcher
from weber.cache.store import Store
from weber.checkpoint.resume import Found
from weber.config.load import build_config
from weber.config.optim import OptimConfig
from weber.config.optimizers import FACTS
from weber.errors import ConfigError
from weber.families.tensors import build_entry, save_weights
from weber.optim.libraries import evaluated
from weber.optim.schedules import write_learning_rate
from weber.optim.states import list_states, load_states
from weber.optim.table import OPTIMIZERS, build_optimizer
from weber.planning.plan import build_plan
from weber.training.assemble import assemble, encode_cache, train
from weber.training.prepared import Training
from weber.training.step import train_step

pytestmark = pytest.mark.filterwarnings("ignore::UserWarning")
HERE = [name for name in OPTIMIZERS if not FACTS[name].needs_gpu]
NUM_LAYERS = 54
SHARDS = [HERE[start : start + NUM_LAYERS] for start in range(0, len(HERE), NUM_LAYERS)]


class Many:
    """An optimizer of its own for the adapter of each layer, so that one run tests as many as there are layers."""

    def __init__(self, names: Sequence[str], parameters: Sequence[tuple[str, nn.Parameter]]) -> None:
        self.pairs = {name: parameters[2 * place : 2 * place + 2] for place, name in enumerate(names)}
        self.optimizers: dict[str, torch.optim.Optimizer] = {}
        self.rates: dict[str, float] = {}
        for name, pair in self.pairs.items():
            config = OptimConfig(name=name).build_resolved("lora")
            self.rates[name] = config.lr or 0.0
            self.optimizers[name] = build_optimizer([parameter for _, parameter in pair], config, seed=3)

    def step(self) -> None:
        for name, optimizer in self.optimizers.items():
            write_learning_rate(optimizer, self.rates[name])
            optimizer.step()

    def zero_grad(self) -> None:
        for optimizer in self.optimizers.values():
            optimizer.zero_grad()

    def save(self, folder: Path) -> None:
        """States, and the weights as a checkpoint holds them."""
        for name, optimizer in self.optimizers.items():
            states = list_states(optimizer, self.pairs[name])
            save_weights(folder / f"{name}.safetensors", {key: build_entry(one) for key, one in states.items()}, metadata={})
        with ExitStack() as stack:
            for optimizer in self.optimizers.values():
                stack.enter_context(evaluated(optimizer))
            weights = {name: build_entry(one.detach()) for pair in self.pairs.values() for name, one in pair}
            save_weights(folder / "weights.safetensors", weights, metadata={})

    def load(self, folder: Path) -> None:
        weights = load_file(folder / "weights.safetensors")
        for name, optimizer in self.optimizers.items():
            with torch.no_grad():
                for key, parameter in self.pairs[name]:
                    parameter.copy_(weights[key])
            load_states(optimizer, self.pairs[name], tensors=load_file(folder / f"{name}.safetensors"))

    def copy(self) -> dict[str, list[Tensor]]:
        return {name: [parameter.detach().clone() for _, parameter in pair] for name, pair in self.pairs.items()}


@pytest.fixture(scope="module")
def training(tmp_path_factory: pytest.TempPathFactory, pictures: Path) -> Iterator[Training]:
    """The pocket model with adapters on every layer of its blocks, small pictures cached."""
    folder = tmp_path_factory.mktemp("optimizers")
    tree = {
        "model": {"variant": "pocket"},
        "memory": {"device": "cpu", "gradient_checkpointing": "none"},
        "adapter": {"rank": 2},
        "data": [{"path": str(pictures), "resolution": 64}],
        "output": {"folder": str(folder / "run"), "cache": str(folder / "cache")},
    }
    watcher, _ = build_watcher()
    plan = build_plan(build_config(tree))
    store = Store(plan.resolved.output.cache)
    encode_cache(plan, store, watcher=watcher)
    training = assemble(plan, store, start=Found(0, None, {}), watcher=watcher)
    with training.loader:
        yield training


def _go(training: Training, many: Many, *, start: int, stop: int) -> None:
    learner = replace(training.learner, optimizer=many)  # type: ignore[arg-type]
    for step in range(start, stop):
        train_step(learner, training.loader.load(step), step=step)


@pytest.mark.parametrize("names", SHARDS, ids=lambda names: f"{names[0]}-{names[-1]}")
def test_ten_and_ten_are_twenty(names: list[str], training: Training, tmp_path: Path) -> None:
    parameters = training.learner.parameters
    assert len(parameters) == 2 * NUM_LAYERS
    before = [parameter.detach().clone() for _, parameter in parameters]
    many = Many(names, parameters)
    start = many.copy()
    _go(training, many, start=0, stop=10)
    many.save(tmp_path)
    _go(training, many, start=10, stop=20)
    whole = many.copy()

    fresh = Many(names, parameters)
    fresh.load(tmp_path)
    _go(training, fresh, start=10, stop=20)
    again = fresh.copy()
    with torch.no_grad():
        for (_, parameter), numbers in zip(parameters, before, strict=True):
            parameter.copy_(numbers)
    assert [name for name in names if not all(map(torch.equal, whole[name], again[name]))] == [], "others after the resume"
    assert [name for name in names if all(map(torch.equal, whole[name], start[name]))] == [], "have not moved"


def _read_losses(folder: Path) -> list[tuple[int, float, float]]:
    lines = [json.loads(line) for line in (folder / "metrics.jsonl").read_text().splitlines()]
    return [(line["step"], line["loss"], line["lr"]) for line in lines]


WHOLE = ["adamw_schedulefree", "torchao_adamw_4bit"]


@pytest.mark.parametrize("name", WHOLE)
def test_runs_go_on_bit_for_bit(name: str, build_run: BuildRun) -> None:
    """From the plan to the files; the second part begins at the checkpoint of the first run's half."""
    sections = {
        "data": [{"resolution": 64}],
        "adapter": {"rank": 2, "targets": ["single_transformer_blocks.0.attn.to_q"]},
        "optim": {"name": name, "lr": None, "warmup_steps": 2},
        "train": {"steps": 6, "batch_size": 1},
        "sampling": {"prompts": ["a cat"], "every": 2, "steps": 1, "width": 64, "height": 64},
    }
    config = build_run("whole/run", **sections)
    watcher, _ = build_watcher()
    whole = train(config, resume=False, watcher=watcher).parent
    parts = config.output.folder.parents[1] / "parts" / "run"
    shutil.copytree(whole / "checkpoint-000003", parts / "checkpoint-000003")
    watcher, buffer = build_watcher()
    train(build_run("parts/run", **sections), resume=True, watcher=watcher)
    assert "Changed since" not in buffer.getvalue()
    assert _read_losses(whole)[3:] == _read_losses(parts)
    for file in ("adapter.safetensors", "checkpoint-000006/adapter.safetensors", "checkpoint-000006/optimizer.safetensors"):
        assert (whole / file).read_bytes() == (parts / file).read_bytes(), file


def test_pictures_change_nothing_of_a_schedule_free_run(build_run: BuildRun) -> None:
    sections = {
        "data": [{"resolution": 64}],
        "adapter": {"rank": 2, "targets": ["single_transformer_blocks.0.attn.to_q"]},
        "optim": {"name": "adamw_schedulefree", "lr": 1e-2},
        "train": {"steps": 4, "batch_size": 1},
    }
    watcher, _ = build_watcher()
    plain = train(build_run("plain", **sections, output={"save_every": 100}), resume=False, watcher=watcher)
    sampling = {"prompts": ["a cat"], "every": 1, "steps": 1, "width": 64, "height": 64}
    painted = train(build_run("painted", **sections, sampling=sampling, output={"save_every": 1}), resume=False, watcher=watcher)
    one, other = load_file(plain), load_file(painted)
    assert all(torch.equal(tensor, other[key]) for key, tensor in one.items())


@pytest.mark.parametrize("name", ["bnb_paged_adamw_8bit", "bnb_ademamix"])
def test_what_needs_a_gpu_is_refused_without_one(name: str, build_run: BuildRun) -> None:
    with pytest.raises(ConfigError, match="runs on CUDA devices only"):
        build_plan(build_run(optim={"name": name}))


def test_options_are_checked_before_the_model_is_read(build_run: BuildRun) -> None:
    with pytest.raises(ConfigError, match="write d_coef"):
        build_plan(build_run(optim={"name": "Prodigy", "lr": 1.0, "options": {"dcoef": 1.0}}))
