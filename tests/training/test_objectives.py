"""Every objective on the small model: its first losses are pinned, and what it asks of the network is what its settings say."""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor

from tests.runs import build_watcher
from weber.cache.store import Store
from weber.checkpoint.resume import Found
from weber.config.load import build_config
from weber.config.objective import ObjectiveConfig
from weber.data.seeds import build_seed, draw_uniform
from weber.objective.flow import build_noisy, build_target, draw_noise
from weber.objective.losses import build_losses
from weber.objective.timesteps import build_timesteps
from weber.planning.plan import build_plan
from weber.training.assemble import assemble, encode_cache
from weber.training.batch import Batch, Fixed
from weber.training.learner import Learner
from weber.training.question import Question, build_question, draw_timesteps, draw_uniforms
from weber.training.step import train_step

GROUP = 4
MASK = "mask"
"""Not a setting: the left half of each picture is masked out."""

PINNED: dict[str, tuple[dict[str, Any], list[float]]] = {
    "uniform": ({"timesteps": "uniform"}, [0.841151, 0.648148]),
    "sigmoid": ({"timesteps": "sigmoid", "sigmoid_scale": 0.7, "sigmoid_offset": 0.3}, [0.762988, 0.70321]),
    "logit_normal": ({"timesteps": "logit_normal", "logit_mean": -0.5}, [0.750868, 0.697405]),
    "mode": ({"timesteps": "mode"}, [0.704532, 0.809992]),
    "cosmap": ({"timesteps": "cosmap"}, [0.825141, 0.651937]),
    "beta": ({"timesteps": "beta", "beta_shape": [1.5, 3.0]}, [0.731343, 0.680755]),
    "cubic": ({"timesteps": "cubic", "cubic_weights": [0.2, 1.0, 0.5]}, [0.813319, 0.633373]),
    "shift": ({"timesteps": "shift", "shift": 3.0}, [0.886339, 0.817466]),
    "fine detail": ({"timesteps": "uniform", "shift": 0.1}, [0.941074, 0.879365]),
    "token_shift": ({"timesteps": "token_shift"}, [0.876911, 0.743045]),
    "fast": ({"timesteps": "fast"}, [0.965724, 0.839806]),
    "list": ({"timesteps": "list", "timestep_list": [0.9, 0.4]}, [0.577858, 0.656243]),
    "cycle": ({"timesteps": "list", "timestep_list": [0.9, 0.6, 0.4], "timestep_order": "cycle"}, [0.913289, 0.566235]),
    "stratified": ({"timesteps": "sigmoid", "stratified": True}, [0.620446, 0.568034]),
    "guidance": ({"timesteps": "sigmoid", "guidance": 3.5}, [1.824846, 1.369122]),
    "guidance_range": ({"timesteps": "sigmoid", "guidance_range": [1.0, 4.0]}, [1.592281, 1.172831]),
    "l1": ({"timesteps": "sigmoid", "loss": "l1"}, [0.646264, 0.60269]),
    "huber": ({"timesteps": "sigmoid", "loss": "huber", "huber_schedule": "exponential"}, [0.300228, 0.1858]),
    "smooth_l1": ({"timesteps": "sigmoid", "loss": "smooth_l1"}, [1.131469, 1.045077]),
    "sigma_sqrt": ({"timesteps": "sigmoid", "weighting": "sigma_sqrt"}, [8.376577, 1.641389]),
    "cosmap weights": ({"timesteps": "sigmoid", "weighting": "cosmap"}, [0.818833, 0.664758]),
    "mask by area": ({"timesteps": "sigmoid", MASK: True}, [0.765501, 0.651123]),
    "mask by picture": ({"timesteps": "sigmoid", "mask_mean": "picture", "mask_minimum": 0.1, MASK: True}, [0.424586, 0.361064]),
    "rollout": ({"timesteps": "sigmoid", "rollout": {"max_steps": 3, "probability": 1.0}}, [1.110053, 0.794646]),
}


@pytest.fixture(scope="module")
def learner_and_batches(tmp_path_factory: pytest.TempPathFactory, pictures: Path) -> tuple[Learner, list[Batch]]:
    """A run before its first step, and the samples of that step as one micro-batch."""
    folder = tmp_path_factory.mktemp("objectives")
    config = build_config(
        {
            "model": {"variant": "pocket"},
            "data": [{"path": str(pictures)}],
            "adapter": {"rank": 4},
            "memory": {"device": "cpu", "gradient_checkpointing": "none"},
            "optim": {"lr": 1e-12},
            "train": {"steps": 10, "batch_size": GROUP},
            "output": {"folder": str(folder / "run"), "cache": str(folder / "cache")},
        }
    )
    plan, watcher = build_plan(config), build_watcher()[0]
    store = Store(config.output.cache)
    encode_cache(plan, store, watcher=watcher)
    training = assemble(plan, store, start=Found(0, None, {}), watcher=watcher)
    with training.loader:
        return training.learner, training.loader.load(0)


@pytest.fixture
def learner(learner_and_batches: tuple[Learner, list[Batch]]) -> Learner:
    return learner_and_batches[0]


@pytest.fixture
def batch(learner_and_batches: tuple[Learner, list[Batch]]) -> Iterator[Batch]:
    [batch] = learner_and_batches[1]
    before = batch.latents_BCHW.clone()
    yield batch
    assert torch.equal(batch.latents_BCHW, before), "what is read ahead is nobody's to change"


def ask(learner: Learner, **objective: Any) -> Learner:
    """The same run with another objective."""
    settings = ObjectiveConfig(**objective)
    guidance = None if settings.guidance_range else settings.guidance if settings.guidance is not None else 1.0
    return replace(learner, config=learner.config.model_copy(update={"objective": settings}), guidance=guidance)


def _question(learner: Learner, batch: Batch, *, step: int = 0) -> Question:
    [t_B] = draw_timesteps(learner, [batch], step=step)
    return build_question(learner, batch, t_B=t_B, step=step)


def cut(batch: Batch, *sizes: int) -> list[Batch]:
    """The same samples in several micro-batches."""
    edges = np.cumsum([0, *sizes])
    parts = [slice(int(low), int(high)) for low, high in zip(edges, edges[1:], strict=False)]
    return [
        replace(
            batch,
            latents_BCHW=batch.latents_BCHW[one],
            condition={name: tensor[one] for name, tensor in batch.condition.items()},
            places=batch.places[one],
            names=batch.names[one],
            captions=batch.captions[one],
            weights_B=None if batch.weights_B is None else batch.weights_B[one],
        )
        for one in parts
    ]


@pytest.mark.parametrize("name", PINNED)
def test_first_losses_are_pinned(name: str, learner: Learner, batch: Batch) -> None:
    settings, expected = PINNED[name]
    asked = ask(learner, **{key: value for key, value in settings.items() if key != MASK})
    if MASK in settings:
        mask = torch.ones_like(batch.latents_BCHW[:, :1])
        mask[..., : mask.shape[-1] // 2] = 0
        batch = replace(batch, mask_B1HW=mask)
    assert [train_step(asked, [batch], step=step)["loss"] for step in range(2)] == pytest.approx(expected, rel=1e-4)


def test_stratified_levels_are_one_per_part_over_all_micro_batches(learner: Learner, batch: Batch) -> None:
    asked = ask(learner, timesteps="uniform", stratified=True)
    orders = set()
    for step in range(20):
        cut_levels = torch.cat(draw_timesteps(asked, cut(batch, 1, 3), step=step))
        assert torch.equal(cut_levels, draw_timesteps(asked, [batch], step=step)[0])
        parts = [int(GROUP * t) for t in cut_levels.tolist()]
        assert sorted(parts) == list(range(GROUP))
        orders.add(tuple(parts))
    assert len(orders) > 10, "which sample has which part is drawn anew"


@pytest.mark.parametrize("group", [4, 5])
def test_each_place_of_a_stratified_step_sees_the_whole_law(group: int) -> None:
    config = build_config({"data": [{"path": "x"}], "objective": {"timesteps": "uniform", "stratified": True}, "train": {"batch_size": 8}})
    drawn = np.sort([list(draw_uniforms(config, range(group), step=step).values()) for step in range(10_000)], axis=0)
    steps = np.arange(len(drawn) + 1) / len(drawn)
    for place in range(group):
        distance = max(np.abs(drawn[:, place] - steps[:-1]).max(), np.abs(drawn[:, place] - steps[1:]).max())
        assert distance < 1.95 / math.sqrt(len(drawn))


def test_fixed_levels_take_no_part_of_the_law_from_the_others(learner: Learner, batch: Batch) -> None:
    asked = ask(learner, timesteps="uniform", stratified=True)
    kept, learned = cut(batch, 1, GROUP - 1)
    kept = replace(kept, fixed=Fixed(seeds=(7,), levels=(0.5,), target_BCHW=None))
    for step in range(20):
        own, others = draw_timesteps(asked, [kept, learned], step=step)
        assert own.tolist() == [0.5]
        assert sorted(int((GROUP - 1) * t) for t in others.tolist()) == list(range(GROUP - 1))


def test_the_loss_varies_less_where_levels_are_stratified(learner: Learner, batch: Batch) -> None:
    """The losses of pictures with a noise are measured at 16 levels, and those of many steps are read from that.

    How much less is in benchmarks/variance.py: pictures differ more from each other than noise levels do.
    """
    levels, losses = np.linspace(0.02, 0.98, 16), []
    with torch.no_grad():
        noise = draw_noise(batch.latents_BCHW, [build_seed(0, place) for place in range(GROUP)])
        for level in levels:
            t = torch.full((GROUP,), float(level))
            velocity = learner.predictor(build_noisy(batch.latents_BCHW, noise, t), t, batch.condition | {"guidance": torch.ones(GROUP)})
            losses.append(build_losses(velocity, build_target(batch.latents_BCHW, noise), t, config=ObjectiveConfig()))
    table = torch.stack(losses).double().numpy()
    own, same = {}, {}
    for is_stratified in (True, False):
        config = ask(learner, timesteps="uniform", stratified=is_stratified).config
        drawn = np.array([list(draw_uniforms(config, range(GROUP), step=step).values()) for step in range(10_000)])
        means = sum(np.interp(drawn[:, place], levels, table[:, place]) for place in range(GROUP)) / GROUP
        own[is_stratified] = means.var()
        same[is_stratified] = np.interp(drawn, levels, table[:, 0]).mean(axis=1).var()
        assert means.mean() == pytest.approx(np.interp((np.arange(500) + 0.5) / 500, levels, table.mean(axis=1)).mean(), rel=0.01)
    assert same[True] < 0.5 * same[False]
    assert own[True] < 0.97 * own[False]


def test_a_cycle_gives_each_level_its_turn_over_places_and_steps(learner: Learner, batch: Batch) -> None:
    levels = [0.9, 0.6, 0.4]
    asked = ask(learner, timesteps="list", timestep_list=levels, timestep_order="cycle")
    seen = [t for step in range(3) for one in draw_timesteps(asked, cut(batch, 1, 3), step=step) for t in one.tolist()]
    assert seen == pytest.approx(levels * GROUP)


def test_guidance_is_drawn_for_each_sample_and_step(learner: Learner, batch: Batch) -> None:
    asked = ask(learner, timesteps="sigmoid", guidance_range=(2.0, 5.0))
    for step in (0, 1):
        expected = [2 + 3 * draw_uniform(asked.config.train.seed, step, place, "guidance") for place in batch.places]
        assert _question(asked, batch, step=step).condition["guidance"].tolist() == pytest.approx(expected)
        assert len(set(expected)) == GROUP
    assert _question(ask(learner, timesteps="sigmoid", guidance=3.5), batch).condition["guidance"].tolist() == [3.5] * GROUP


class _Line:
    """Answers with the velocity of the straight line and an error; remembers what it was asked."""

    def __init__(self, learner: Learner, line: Tensor) -> None:
        self.transformer, self.routes, self.line = learner.predictor.transformer, learner.predictor.routes, line
        self.asked: list[tuple[list[float], bool, bool]] = []

    def __call__(self, noisy: Tensor, t: Tensor, condition: Mapping[str, Tensor]) -> Tensor:
        self.asked.append((t.tolist(), self.transformer.training, torch.is_grad_enabled()))
        return condition["line"] + 0.1


def test_a_rollout_leads_to_where_the_network_goes_and_asks_for_the_way_back(learner: Learner, batch: Batch) -> None:
    rollout = {"max_steps": 3, "step_size": 0.1, "probability": 1.0}
    asked = ask(learner, timesteps="list", timestep_list=[0.5, 0.95, 0.05, 1.0], timestep_order="cycle", rollout=rollout)
    plain = _question(ask(learner, timesteps="list", timestep_list=[0.5, 0.95, 0.05, 1.0], timestep_order="cycle"), batch)
    line = _Line(learner, plain.target_BCHW)
    batch = replace(batch, condition=batch.condition | {"line": plain.target_BCHW})
    with_line = replace(asked, predictor=line)  # type: ignore[arg-type]
    found = _question(with_line, batch)
    assert line.transformer.training
    assert all(not is_training and not has_gradient for _, is_training, has_gradient in line.asked)
    distance = plain.noisy_BCHW - found.noisy_BCHW
    for place, t in enumerate(plain.t_B.tolist()):
        moved = 0.0
        if 0.1 <= t < 1:
            num_steps = 1 + int(3 * draw_uniform(asked.config.train.seed, 0, place, "rollout steps"))
            moved = 0.1 * (min(1.0, t + 0.1 * num_steps) - t)
        assert torch.allclose(distance[place], torch.full_like(distance[place], moved), atol=1e-5)
        assert torch.allclose(found.target_BCHW[place], plain.target_BCHW[place] - moved / t, atol=1e-4)
    assert torch.equal(found.noisy_BCHW[2:], plain.noisy_BCHW[2:]), "next to the picture and at pure noise nothing is rolled out"
    assert torch.equal(found.target_BCHW[2:], plain.target_BCHW[2:])


def test_a_rollout_does_not_depend_on_how_the_step_is_cut(learner: Learner, batch: Batch) -> None:
    asked = ask(learner, timesteps="sigmoid", rollout={"max_steps": 3, "probability": 0.7})
    whole = _question(asked, batch)
    parts = cut(batch, 1, 3)
    levels = draw_timesteps(asked, parts, step=0)
    questions = [build_question(asked, part, t_B=t_B, step=0) for part, t_B in zip(parts, levels, strict=True)]
    assert torch.allclose(torch.cat([one.noisy_BCHW for one in questions]), whole.noisy_BCHW, atol=1e-5)
    assert torch.allclose(torch.cat([one.target_BCHW for one in questions]), whole.target_BCHW, atol=1e-4)
    assert not torch.allclose(whole.noisy_BCHW, _question(ask(learner, timesteps="sigmoid"), batch).noisy_BCHW, atol=1e-3)


def test_before_its_ramp_a_rollout_changes_nothing(learner: Learner, batch: Batch) -> None:
    plain = _question(ask(learner, timesteps="sigmoid"), batch, step=3)
    waiting = _question(ask(learner, timesteps="sigmoid", rollout={"probability": 1.0, "start_step": 4}), batch, step=3)
    assert torch.equal(plain.noisy_BCHW, waiting.noisy_BCHW)
    assert torch.equal(plain.target_BCHW, waiting.target_BCHW)


def test_masked_pixels_have_no_influence_on_any_gradient(learner: Learner, batch: Batch) -> None:
    """The wanted velocity changes outside of the mask, and every gradient stays as it was, bit for bit."""
    asked = ask(learner, timesteps="sigmoid")
    mask = torch.ones_like(batch.latents_BCHW[:, :1])
    mask[..., : mask.shape[-1] // 2] = 0
    question = _question(asked, batch)
    found = []
    for other in (0.0, 5.0):
        velocity = learner.predictor(question.noisy_BCHW, question.t_B, question.condition)
        target = question.target_BCHW + other * (1 - mask)
        losses = build_losses(velocity, target, question.t_B, config=asked.config.objective, mask_B1HW=mask)
        found.append(torch.autograd.grad(losses.sum(), [one for _, one in learner.parameters], allow_unused=True))
    assert any(one is not None and one.abs().max() > 0 for one in found[0])
    for one, other_gradient in zip(*found, strict=True):
        assert (one is None and other_gradient is None) or torch.equal(one, other_gradient)


def test_token_shift_is_that_of_the_pictures_size(learner: Learner, batch: Batch) -> None:
    shift = learner.family.shift(learner.family.num_tokens(*batch.latents_BCHW.shape[-2:]))
    uniforms = [draw_uniform(learner.config.train.seed, 0, place, "timestep") for place in batch.places]
    for settings in ({"timesteps": "token_shift"}, {"timesteps": "mode", "shift": "tokens"}):
        [t_B] = draw_timesteps(ask(learner, **settings), [batch], step=0)
        assert torch.equal(t_B, build_timesteps(ObjectiveConfig(**settings), uniforms, token_shift=shift))
