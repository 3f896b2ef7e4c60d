"""A host that does not wait for the device, as on a GPU: the device decides whether a step counts, and the host reads it a step later."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterable, Sequence
from pathlib import Path
from typing import Any
from unittest import mock

import pytest
import torch
from safetensors.torch import load_file
from torch import Tensor
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_flatten

from tests.runs import BuildRun, build_watcher
from tests.training.test_masks import prepare
from weber.checkpoint.save import list_checkpoints
from weber.config.run import RunConfig
from weber.errors import TrainingError
from weber.optim.skip import can_skip
from weber.training import assemble, loop
from weber.training.assemble import train
from weber.training.batch import Batch
from weber.training.learner import Learner
from weber.training.outcome import Health, Outcome
from weber.training.question import build_question, draw_timesteps
from weber.training.step import start_step

RUNS: dict[str, dict[str, Any]] = {
    "adamw": {"optim": {"lr": 1e-3, "clip_norm": "off"}},
    "our own, with a mean": {"optim": {"name": "adamw_8bit", "lr": 1e-3, "clip_norm": "off", "ema_decay": 0.5}},
    "full and fused": {
        "adapter": {"kind": "full", "targets": ["transformer_blocks.0.attn"], "rank": 16},
        "optim": {"name": "lion", "lr": 1e-4, "fused_backward": True, "clip_norm": "off"},
    },
}
LATE = pytest.mark.usefixtures("late")


@pytest.fixture
def late(monkeypatch: pytest.MonkeyPatch) -> None:
    def build(device: torch.device, optimizer: torch.optim.Optimizer, **others: object) -> Health:
        assert can_skip(optimizer)
        return Health(device)

    monkeypatch.setattr(assemble, "build_health", build)


def _run(config: RunConfig) -> Path:
    train(config, resume=False, watcher=build_watcher()[0])
    return config.output.folder


def _read_metrics(folder: Path) -> list[dict[str, float]]:
    lines = (folder / "metrics.jsonl").read_text(encoding="utf-8").splitlines()
    return [{key: value for key, value in json.loads(line).items() if key not in ("seconds", "peak_memory_bytes")} for line in lines]


@pytest.mark.parametrize("name", list(RUNS)[1:])
def test_a_run_is_the_same(name: str, build_small: BuildRun, monkeypatch: pytest.MonkeyPatch) -> None:
    asked = _run(build_small("asked", **RUNS[name]))
    monkeypatch.setattr(assemble, "build_health", lambda device, *others, **more: Health(device))
    late = _run(build_small("late", **RUNS[name]))
    assert _read_metrics(asked) == _read_metrics(late) and len(_read_metrics(late)) == 4
    files = [path.relative_to(asked) for path in asked.glob("checkpoint-000004/*.safetensors")]
    tensors = [(load_file(asked / file), load_file(late / file)) for file in files]
    assert len(tensors) > 1 and all(torch.equal(one[key], other[key]) for one, other in tensors for key in one)


def test_gradients_are_clipped_by_the_same_factor(build_small: BuildRun, monkeypatch: pytest.MonkeyPatch) -> None:
    clipped = {"optim": {"lr": 1e-3, "clip_norm": 1e-3}}
    asked = _run(build_small("asked", **clipped))
    monkeypatch.setattr(assemble, "build_health", lambda device, *others, **more: Health(device))
    ours, theirs = (load_file(folder / "adapter.safetensors") for folder in (_run(build_small("late", **clipped)), asked))
    assert all(torch.allclose(ours[key], theirs[key], rtol=1e-4, atol=1e-6) for key in theirs)


def _list_state(learner: Learner) -> list[Tensor]:
    states = (learner.optimizer.state[parameter] for _, parameter in learner.parameters)
    moments = [tensor for state in states for tensor in state.values()]
    means = [] if learner.ema is None else [*learner.ema.list_tensors().values()]
    return [tensor.detach().clone() for tensor in (*(parameter for _, parameter in learner.parameters), *moments, *means)]


@LATE
@pytest.mark.parametrize("name", RUNS)
def test_a_loss_that_is_not_finite_changes_nothing_nor_does_the_step_after_it(name: str, build_small: BuildRun) -> None:
    training = prepare(build_small("bad", **RUNS[name]))
    learner, first = training.learner, training.loader.load(0)
    assert start_step(learner, first, step=0).read()["loss"] > 0
    before = _list_state(learner)
    bad = training.loader.load(1)
    bad[0].latents_BCHW[0, 0, 0, 0] = float("nan")
    outcomes = [start_step(learner, bad, step=1), start_step(learner, training.loader.load(2), step=2)]
    with pytest.raises(TrainingError, match="The loss of step 2 is not finite; training stopped before anything was changed") as caught:
        outcomes[0].read()
    assert bad[0].names[0] in caught.value.got
    assert all(torch.equal(one, other) for one, other in zip(before, _list_state(learner), strict=True))


@LATE
def test_the_run_ends_a_step_later_with_what_was_good(build_small: BuildRun, monkeypatch: pytest.MonkeyPatch) -> None:
    begun: list[int] = []
    take = loop.start_step

    def spoil(learner: Learner, batches: Sequence[Batch], *, step: int, meanwhile: Callable[[], None]) -> Outcome:
        begun.append(step)
        if step == 4:
            for _, parameter in learner.parameters:
                parameter.data.add_(1e30)
        return take(learner, batches, step=step, meanwhile=meanwhile)

    monkeypatch.setattr(loop, "start_step", spoil)
    config = build_small("spoiled", train={"steps": 8, "batch_size": 1})
    with pytest.raises(TrainingError, match="of step 5 is not finite"):
        _run(config)
    assert begun == [0, 1, 2, 3, 4, 5]
    assert [step for step, _ in list_checkpoints(config.output.folder)] == [2]
    assert (config.output.folder / "checkpoint-000004-not-finite").is_dir()
    assert len(_read_metrics(config.output.folder)) == 4


TOLIST = Tensor.tolist


class Device(TorchDispatchMode):
    """As if tensors, and all that is made of them, lay on a device: counts where the host waits for one of their numbers."""

    WAITING = {"_local_scalar_dense", "nonzero", "masked_select", "equal", "is_nonzero", "item"}

    def __init__(self, tensors: Iterable[Tensor]) -> None:
        super().__init__()
        self.there = {tensor.untyped_storage().data_ptr() for tensor in tensors}
        self.kept: list[object] = []  # so that no address is given twice
        self.waits: list[str] = []

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        made = func(*args, **(kwargs or {}))
        given = [one for one in tree_flatten((args, kwargs))[0] if isinstance(one, Tensor)]
        if any(self._is_there(one) for one in given):
            name = func._overloadpacket.__name__
            if name in self.WAITING or (name == "index" and any(one.dtype == torch.bool for one in given)):
                self.waits.append(name)
            new = [one for one in tree_flatten(made)[0] if isinstance(one, Tensor)]
            self.kept.append(new)
            self.there |= {one.untyped_storage().data_ptr() for one in new}
        return made

    def list_numbers(self, tensor: Tensor) -> Any:
        """`Tensor.tolist`, which waits too and is dispatched nowhere."""
        if self._is_there(tensor):
            self.waits.append("tolist")
        return TOLIST(tensor)

    def _is_there(self, tensor: Tensor) -> bool:
        return tensor.untyped_storage().data_ptr() in self.there


def _count_waits(training: Any, *, step: int) -> list[str]:
    learner, batches = training.learner, training.loader.load(step)
    assert learner.health is not None or not training.learner.ema
    transformer, means = learner.predictor.transformer, [] if learner.ema is None else [*learner.ema.list_tensors().values()]
    tensors = [*transformer.parameters(), *transformer.buffers(), *means, *(one for batch in batches for one in batch.list_tensors())]
    moments = [one for state in learner.optimizer.state.values() for key, one in state.items() if key != "step"]
    device = Device([*tensors, *moments, *([] if learner.health is None else [learner.health.is_finite])])
    with device, mock.patch.object(Tensor, "tolist", lambda tensor: device.list_numbers(tensor)):
        start_step(learner, batches, step=step)
    return device.waits


MORE: dict[str, dict[str, Any]] = {
    "clipped, two batches": {"optim": {"lr": 1e-3, "clip_norm": 1.0}, "train": {"steps": 4, "batch_size": 1, "accumulation": 2}},
    "routes": {"objective": {"tread": [{"ratio": 0.5, "first": 1, "last": -2}]}},
    "packed": {"memory": {"device": "cpu", "quantize": "int8", "gradient_checkpointing": "all"}},
    "guidance": {"objective": {"guidance_range": [1.0, 3.0]}},
}


@LATE
@pytest.mark.parametrize("name", [*RUNS, *MORE])
def test_the_host_never_waits(name: str, build_small: BuildRun) -> None:
    training = prepare(build_small("waits", **(RUNS | MORE)[name]))
    start_step(training.learner, training.loader.load(0), step=0)  # what lies is found once
    assert _count_waits(training, step=1) == []


def test_waits_are_seen(build_small: BuildRun) -> None:
    """Without `health` the loss and the norm are asked for."""
    training = prepare(build_small("waits"))
    start_step(training.learner, training.loader.load(0), step=0)
    assert len(_count_waits(training, step=1)) >= 2


class _Copies(TorchDispatchMode):
    def __init__(self) -> None:
        super().__init__()
        self.waiting: list[bool] = []

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        if func._overloadpacket.__name__ == "_to_copy" and args[0].device.type == "cpu" and kwargs.get("device") == torch.device("meta"):
            self.waiting.append(not kwargs.get("non_blocking"))
        return func(*args, **(kwargs or {}))


def test_what_is_drawn_for_a_step_is_sent_without_waiting(build_small: BuildRun) -> None:
    config = build_small("sent", objective={"guidance_range": [1.0, 3.0], "tread": [{"ratio": 0.5, "first": 1, "last": -2}]})
    training = prepare(config)
    [batch] = training.loader.load(0)
    condition = {name: tensor.to("meta") for name, tensor in batch.condition.items()}
    there = Batch(batch.latents_BCHW.to("meta"), condition, batch.places, batch.names)
    with _Copies() as copies:
        [t_B] = draw_timesteps(training.learner, [there], step=0)
        build_question(training.learner, there, t_B=t_B, step=0)
    assert copies.waiting == [False] * 4, "noise levels, noise, guidance, routes"
