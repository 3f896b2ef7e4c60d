"""One optimizer step: however it is cut into micro-batches it draws and learns the same, and bad numbers change nothing."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor, nn

from weber.adapters.lora import build_lora
from weber.adapters.target import list_targets
from weber.config.load import build_config
from weber.data.seeds import build_seed, draw_uniform
from weber.errors import TrainingError
from weber.families.flux1.keys import ADAPTER_TARGETS
from weber.families.table import build_family
from weber.memory.load import load_predictor
from weber.memory.run import build_run
from weber.optim.table import build_optimizer
from weber.training.batch import Batch
from weber.training.learner import Learner
from weber.training.step import train_step

CPU = torch.device("cpu")
STEP = 7


class Listener(nn.Module):
    """Stands before the network and remembers what it was fed."""

    def __init__(self, predictor: Any) -> None:
        super().__init__()
        self.predictor, self.transformer, self.routes = predictor, predictor.transformer, predictor.routes
        self.heard: list[tuple[Tensor, Tensor, Tensor | None]] = []

    def forward(self, noisy: Tensor, t: Tensor, condition: Mapping[str, Tensor]) -> Tensor:
        self.heard.append((noisy.detach().clone(), t, condition.get("guidance")))
        velocity: Tensor = self.predictor(noisy, t, condition)
        return velocity

    def join(self, position: int) -> Tensor:
        """What all calls were fed, as one batch."""
        return torch.cat([call[position] for call in self.heard])


def _build(model: Path, **sections: dict[str, Any]) -> Learner:
    tree: dict[str, Any] = {"model": {"path": str(model)}, "data": [{"path": "pictures"}], "adapter": {"rank": 4}}
    tree["optim"] = {"clip_norm": "off", "lr": 1e-4}
    tree["objective"] = {"timesteps": "sigmoid"}
    config = build_config(tree | sections | {"optim": tree["optim"] | sections.get("optim", {})})
    family = build_family(config.model)
    predictor = load_predictor(family, device=CPU, dtype=torch.float32)
    predictor.run = build_run(config.memory, predictor, family=family)
    modules = list_targets(predictor.transformer, config.adapter.chosen_targets, sets=ADAPTER_TARGETS)
    parameters = build_lora(predictor.transformer, config.adapter, modules=modules, seed=0)
    generator = torch.Generator().manual_seed(1)
    for _, parameter in parameters:
        parameter.data = 0.1 * torch.randn(parameter.shape, generator=generator)
    optimizer = build_optimizer([parameter for _, parameter in parameters], config.optim, seed=0)
    predictor.transformer.train()
    return Learner(config, family, Listener(predictor), parameters, optimizer, family.sample_defaults.training_guidance)


def _draw_batches(sizes: Sequence[int]) -> list[Batch]:
    """The same samples, cut into micro-batches of these sizes."""
    generator = torch.Generator().manual_seed(2)
    num = sum(sizes)
    latents, text, pooled = (torch.randn(num, *shape, generator=generator) for shape in ((16, 4, 6), (5, 32), (32,)))
    batches, start = [], 0
    for size in sizes:
        part = slice(start, start + size)
        names = tuple(f"{place}.png" for place in range(num)[part])
        batches.append(Batch(latents[part], {"text": text[part], "pooled": pooled[part]}, tuple(range(num)[part]), names))
        start += size
    return batches


class _Gradients(torch.optim.SGD):
    """Keeps the gradients of its last step."""

    def step(self, closure: Any = None) -> None:  # type: ignore[override]
        self.kept = [None if parameter.grad is None else parameter.grad.clone() for parameter in self.param_groups[0]["params"]]


def _list_gradients(model: Path, sizes: Sequence[int], **sections: dict[str, Any]) -> tuple[dict[str, float], Listener, list[Tensor]]:
    learner = _build(model, **sections)
    optimizer = _Gradients([parameter for _, parameter in learner.parameters], lr=1.0)
    learner = Learner(learner.config, learner.family, learner.predictor, learner.parameters, optimizer, learner.guidance)
    numbers = train_step(learner, _draw_batches(sizes), step=STEP)
    assert isinstance(learner.predictor, Listener)
    assert all(gradient is not None for gradient in optimizer.kept)
    return numbers, learner.predictor, optimizer.kept


@pytest.mark.parametrize("sizes", [[1, 1], [2, 2, 1], [3, 2], [1, 1, 1, 1, 1]])
def test_batch_and_accumulation_are_the_same(tiny_model: Path, sizes: list[int]) -> None:
    whole_numbers, whole, whole_gradients = _list_gradients(tiny_model, [sum(sizes)])
    cut_numbers, cut, cut_gradients = _list_gradients(tiny_model, sizes)
    assert (len(whole.heard), len(cut.heard)) == (1, len(sizes))
    assert torch.equal(whole.join(1), cut.join(1))
    assert torch.equal(whole.join(0), cut.join(0))
    assert whole_numbers["loss"] == pytest.approx(cut_numbers["loss"], rel=1e-6)
    for one, other in zip(whole_gradients, cut_gradients, strict=True):
        assert one.abs().max() > 0
        assert (one - other).abs().max() < 1e-6


def test_timesteps_and_noise_are_those_of_seed_step_and_place(tiny_model: Path) -> None:
    _, listener, _ = _list_gradients(tiny_model, [2, 1])
    t, noisy = listener.join(1), listener.join(0)
    latents = torch.cat([batch.latents_BCHW for batch in _draw_batches([2, 1])])
    for place in range(3):
        uniform = torch.tensor([draw_uniform(42, STEP, place, "timestep")], dtype=torch.float64)
        expected_t = torch.sigmoid(torch.special.ndtri(uniform)).float()
        noise = torch.randn(16, 4, 6, generator=torch.Generator().manual_seed(build_seed(42, STEP, place, "noise")))
        assert torch.equal(t[place], expected_t[0])
        assert torch.allclose(noisy[place], (1 - expected_t) * latents[place] + expected_t * noise, atol=1e-6)
    assert len(set(t.tolist())) == 3


def test_other_steps_and_seeds_draw_otherwise(tiny_model: Path) -> None:
    drawn = []
    for seed, step in ((42, 7), (42, 8), (43, 7)):
        learner = _build(tiny_model, train={"seed": seed})
        train_step(learner, _draw_batches([1]), step=step)
        assert isinstance(learner.predictor, Listener)
        drawn.append(learner.predictor.join(1).item())
    assert len(set(drawn)) == 3


def test_the_shift_by_tokens_is_that_of_the_latents_size(tiny_model: Path) -> None:
    plain = _list_gradients(tiny_model, [2])[1].join(1).double()
    shifted = _list_gradients(tiny_model, [2], objective={"timesteps": "token_shift"})[1].join(1).double()
    k = build_family(build_config({"model": {"path": str(tiny_model)}, "data": [{"path": "x"}]}).model).shift(2 * 3)
    assert torch.allclose(shifted, k * plain / (1 + (k - 1) * plain), atol=1e-6)


def test_guidance_reaches_a_model_that_has_the_input(tiny_model: Path, tiny_schnell: Path) -> None:
    assert _list_gradients(tiny_model, [2, 1])[1].join(2).tolist() == [1.0, 1.0, 1.0]
    learner = _build(tiny_schnell)
    train_step(learner, _draw_batches([2]), step=0)
    assert isinstance(learner.predictor, Listener)
    assert learner.predictor.heard[0][2] is None


def test_a_step_moves_the_adapter_and_leaves_no_gradients(tiny_model: Path) -> None:
    learner = _build(tiny_model)
    before = [parameter.detach().clone() for _, parameter in learner.parameters]
    numbers = train_step(learner, _draw_batches([2]), step=STEP)
    assert set(numbers) == {"loss", "grad_norm"}
    assert all(not torch.equal(parameter, old) for (_, parameter), old in zip(learner.parameters, before, strict=True))
    assert all(parameter.grad is None for _, parameter in learner.parameters)


def test_clipping(tiny_model: Path) -> None:
    free_numbers, _, free = _list_gradients(tiny_model, [2])
    norm = torch.stack([gradient.norm() for gradient in free]).norm().item()
    clipped_numbers, _, clipped = _list_gradients(tiny_model, [2], optim={"clip_norm": norm / 4})
    assert free_numbers["grad_norm"] == clipped_numbers["grad_norm"] == pytest.approx(norm, rel=1e-5)
    for one, other in zip(free, clipped, strict=True):
        assert torch.allclose(one / 4, other, rtol=1e-4, atol=1e-9)
    _, _, untouched = _list_gradients(tiny_model, [2], optim={"clip_norm": 4 * norm})
    assert all(torch.equal(one, other) for one, other in zip(free, untouched, strict=True))


def test_dropout_is_drawn_from_the_seed(tiny_model: Path) -> None:
    losses = []
    for seed, disturbance in ((1, 0), (1, 1), (2, 0)):
        torch.manual_seed(disturbance)
        losses.append(_list_gradients(tiny_model, [2], adapter={"rank": 4, "dropout": 0.5}, train={"seed": seed})[0]["loss"])
    assert losses[0] == losses[1] != losses[2]


def test_a_gradient_that_is_not_finite_under_a_finite_loss_changes_nothing(tiny_model: Path) -> None:
    learner = _build(tiny_model)
    before = [parameter.detach().clone() for _, parameter in learner.parameters]
    learner.parameters[0][1].register_hook(lambda gradient: gradient * float("inf"))
    with pytest.raises(TrainingError, match="gradient norm of step"):
        train_step(learner, _draw_batches([2]), step=STEP)
    assert all(torch.equal(parameter, old) for (_, parameter), old in zip(learner.parameters, before, strict=True))


@pytest.mark.parametrize("bad", [float("nan"), float("inf")])
def test_a_loss_that_is_not_finite_changes_nothing_and_names_the_pictures(tiny_model: Path, bad: float) -> None:
    learner = _build(tiny_model)
    batches = _draw_batches([1, 2])
    batches[1].latents_BCHW[1] = bad
    before = [parameter.detach().clone() for _, parameter in learner.parameters]
    with pytest.raises(TrainingError) as caught:
        train_step(learner, batches, step=STEP)
    message = str(caught.value)
    assert "The loss of step 8 is not finite" in message
    assert "0.png, 1.png, 2.png" in message
    assert "fix: " in message
    assert all(torch.equal(parameter, old) for (_, parameter), old in zip(learner.parameters, before, strict=True))
    assert all(parameter.grad is None for _, parameter in learner.parameters)
    assert not learner.optimizer.state
