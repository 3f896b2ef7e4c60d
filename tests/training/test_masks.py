"""Masks for the loss, caption dropout and weights of sets in a whole run: what is not learned leaves no trace."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch
from PIL import Image
from torch import Tensor

from tests.runs import BuildRun, build_watcher
from weber.cache.store import Store
from weber.checkpoint.resume import Found
from weber.config.run import RunConfig
from weber.data.seeds import build_seed
from weber.objective.losses import build_losses
from weber.planning.evaluation import choose_caption
from weber.planning.plan import build_plan, list_keys
from weber.planning.report import build_report
from weber.pocket.random import build_random_model
from weber.pocket.random_flux2 import build_random_flux2
from weber.pocket.random_flux3 import build_random_flux3
from weber.progress import ignore_progress
from weber.track.scores import HELD_OUT
from weber.training.assemble import assemble, encode_cache
from weber.training.batch import Batch, Fixed
from weber.training.evaluation import evaluate
from weber.training.prepared import Training
from weber.training.question import build_question, draw_timesteps
from weber.training.step import train_step

PLAIN: dict[str, Any] = {"clip_norm": "off", "lr": 1e-3}


def prepare(config: RunConfig) -> Training:
    """A run that is ready for its first step; its adapter is not zero, so that all of it has a gradient."""
    watcher, _ = build_watcher()
    plan, store = build_plan(config), Store(config.output.cache)
    encode_cache(plan, store, watcher=watcher)
    training = assemble(plan, store, start=Found(0, None, {}), watcher=watcher)
    generator = torch.Generator().manual_seed(5)
    for _, parameter in training.learner.parameters:
        parameter.data = 0.05 * torch.randn(parameter.shape, generator=generator)
    return training


def write_masks(folder: Path, pictures: Path, *, names: slice = slice(None)) -> Path:
    """Hard masks along the latents' own grid, for some of the pictures: the left three eighths."""
    folder.mkdir()
    for source in sorted(pictures.glob("*.png"))[names]:
        mask = Image.new("L", (64, 64))
        mask.paste(255, (0, 0, 24, 64))
        mask.save(folder / source.name)
    return folder


def _list_gradients(training: Training, losses_B: Tensor) -> list[Tensor]:
    parameters = [parameter for _, parameter in training.learner.parameters]
    return list(torch.autograd.grad(losses_B.sum(), parameters, retain_graph=True))


@pytest.mark.parametrize("objective", [{}, {"mask_mean": "picture", "loss": "huber"}, {"loss": "l1", "weighting": "cosmap"}])
def test_what_is_outside_of_a_hard_mask_moves_nothing(
    build_run: BuildRun, pictures: Path, tmp_path: Path, objective: dict[str, Any]
) -> None:
    masks = write_masks(tmp_path / "masks", pictures)
    training = prepare(build_run(data=[{"loss_masks": str(masks)}], objective=objective))
    learner = training.learner
    with training.loader as loader:
        (batch,) = loader.load(0)
    assert batch.mask_B1HW is not None and batch.mask_B1HW.shape == (2, 1, 8, 8)
    assert torch.equal(batch.mask_B1HW, (torch.arange(8) < 3).float().expand(2, 1, 8, 8))
    (t_B,) = draw_timesteps(learner, [batch], step=0)
    question = build_question(learner, batch, t_B=t_B, step=0)
    velocity = learner.predictor(question.noisy_BCHW, t_B, question.condition)

    def measure(target: Tensor, velocity: Tensor) -> Tensor:
        return build_losses(velocity, target, t_B, config=learner.config.objective, mask_B1HW=batch.mask_B1HW)

    outside = torch.where(batch.mask_B1HW > 0, question.target_BCHW, 100 * torch.randn(question.target_BCHW.shape))
    assert not torch.equal(outside, question.target_BCHW)
    before, after = (_list_gradients(training, measure(target, velocity)) for target in (question.target_BCHW, outside))
    assert all(torch.equal(one, other) for one, other in zip(before, after, strict=True))
    assert all(one.abs().max() > 0 for one in before)
    inside = question.target_BCHW + 0.1 * batch.mask_B1HW
    assert not torch.equal(_list_gradients(training, measure(inside, velocity))[0], before[0])

    velocity = velocity.detach().requires_grad_()
    (gradient,) = torch.autograd.grad(measure(outside, velocity).sum(), velocity)
    assert (gradient[..., 3:] == 0).all() and (gradient[..., :3] != 0).any()


def test_the_step_asks_for_the_mask(build_run: BuildRun, pictures: Path, tmp_path: Path) -> None:
    masks = write_masks(tmp_path / "masks", pictures)
    training = prepare(build_run(data=[{"loss_masks": str(masks)}], optim=PLAIN))
    learner = training.learner
    with training.loader as loader:
        batches = loader.load(0)
    (t_B,) = draw_timesteps(learner, batches, step=0)
    question = build_question(learner, batches[0], t_B=t_B, step=0)
    with torch.no_grad():
        velocity = learner.predictor(question.noisy_BCHW, t_B, question.condition)
    expected = (velocity - question.target_BCHW)[..., :3].square().mean()
    assert train_step(learner, batches, step=0)["loss"] == pytest.approx(float(expected), rel=1e-5)


def test_held_out_pictures_are_measured_where_their_masks_are(build_run: BuildRun, pictures: Path, tmp_path: Path) -> None:
    """The loss at one level, as it is written out here; elsewhere it may be anything."""
    masks = write_masks(tmp_path / "masks", pictures)
    config = build_run(data=[{"loss_masks": str(masks), "evaluation": 0.2}], evaluation={"levels": [0.5], "pictures": 1}, optim=PLAIN)
    training = prepare(config)
    learner, (example,) = training.learner, training.plan.measured.held_out
    with training.loader as loader:
        numbers, batch = evaluate(training, ignore_progress), loader.load_measured(example, choose_caption(example))
        t_B = torch.full((1,), 0.5)
        asked = replace(batch, fixed=Fixed((build_seed("evaluation", example.content, "0.5"),)))
        question = build_question(learner, asked, t_B=t_B, step=0)
        with torch.no_grad():
            velocity = learner.predictor(question.noisy_BCHW, t_B, question.condition)
        left, right = ((velocity - question.target_BCHW)[..., part].square().mean() for part in (slice(0, 3), slice(3, None)))
    assert numbers[HELD_OUT] == pytest.approx(float(left), rel=1e-5) and abs(float(left - right)) > 1e-3


class _Gradients(torch.optim.SGD):
    """Keeps the gradients of its last step, and moves nothing."""

    def step(self, closure: Any = None) -> None:  # type: ignore[override]
        self.kept = [parameter.grad.clone() for parameter in self.param_groups[0]["params"]]


def _step(config: RunConfig, step: int = 0) -> tuple[dict[str, float], list[Tensor], Sequence[Batch]]:
    training = prepare(config)
    optimizer = _Gradients([parameter for _, parameter in training.learner.parameters], lr=1.0)
    with training.loader as loader:
        batches = loader.load(step)
    numbers = train_step(replace(training.learner, optimizer=optimizer), batches, step=step)
    return numbers, optimizer.kept, batches


def test_batch_four_is_four_times_one_with_masks_weights_and_empty_captions(
    build_run: BuildRun, tiny_model: Path, pictures: Path, tmp_path: Path
) -> None:
    masks = write_masks(tmp_path / "masks", pictures, names=slice(0, 6))
    data = [
        {"loss_masks": str(masks), "caption_dropout": 0.5, "resolution": 64, "bucket_step": 16},
        {"path": str(pictures), "name": "again", "loss_weight": 0.25, "regularization": True, "resolution": 64, "bucket_step": 16},
    ]
    model = {"path": str(tiny_model), "variant": None}
    cut = [{"batch_size": 8}, {"batch_size": 1, "accumulation": 8}, {"batch_size": 2, "accumulation": 4}]
    configs = [build_run(f"run-{n}", model=model, data=data, optim=PLAIN, train=one) for n, one in enumerate(cut)]
    (numbers, whole, batches), *others = map(_step, configs)
    kinds = {(batch.mask_B1HW is None, batch.is_regularization) for batch in batches}
    assert kinds == {(True, False), (False, False), (True, True)}
    assert "" in {caption for batch in batches for caption in batch.captions}
    assert set(numbers) == {"loss", "loss_regularization", "grad_norm"}
    for other_numbers, gradients, _ in others:
        assert other_numbers == pytest.approx(numbers, rel=1e-5)
        for one, other in zip(whole, gradients, strict=True):
            assert torch.allclose(one, other, atol=1e-6)


def test_a_weight_of_a_half_halves_what_a_sample_does(build_run: BuildRun) -> None:
    whole, gradients, _ = _step(build_run("one", optim=PLAIN))
    half, halved, batches = _step(build_run("two", data=[{"loss_weight": 0.5}], optim=PLAIN))
    assert half["loss"] == whole["loss"] / 2
    assert all(torch.equal(one / 2, other) for one, other in zip(gradients, halved, strict=True))
    assert batches[0].weights_B is not None and batches[0].weights_B.tolist() == [0.5, 0.5]


MODELS: dict[str, Callable[[Path], Path]] = {
    "flux1": build_random_model,
    "flux2": lambda folder: build_random_flux2(folder, "dev"),
    "flux2 with Qwen": lambda folder: build_random_flux2(folder, "klein-base"),
    "flux3": build_random_flux3,
}


@pytest.mark.parametrize("family", list(MODELS))
def test_a_dropped_caption_is_the_empty_caption(build_run: BuildRun, tmp_path: Path, family: str) -> None:
    """With a probability of 1 a run is the one without captions, of every family, from the cache alone."""
    model = {"path": str(MODELS[family](tmp_path / "model")), "variant": None}
    shape = {"resolution": 64, "bucket_step": 32}
    runs = [
        _step(build_run(name, model=model, data=[shape | data], optim=PLAIN))
        for name, data in (("dropped", {"caption_dropout": 1.0}), ("none", {"captions": "none"}), ("plain", {}))
    ]
    assert runs[0][0] == runs[1][0]
    assert all(torch.equal(one, other) for one, other in zip(runs[0][1], runs[1][1], strict=True))
    assert runs[0][0]["loss"] != runs[2][0]["loss"]
    assert runs[0][2][0].captions == ("", "") and "" not in runs[2][2][0].captions


def test_the_empty_caption_is_encoded_where_it_may_be_drawn(build_run: BuildRun) -> None:
    plain, dropped = (build_plan(build_run(data=[data])) for data in ({}, {"caption_dropout": 0.1}))
    assert "" not in plain.needs.texts
    assert sorted(dropped.needs.texts) == sorted(["", *plain.needs.texts])
    assert len(list_keys(dropped) - list_keys(plain)) == 4  # two text encoders, in two precisions
    assert "captions are empty with probability 0.1" in build_report(dropped)


def test_a_step_reads_no_picture_and_the_cache_keeps_what_it_needs(build_run: BuildRun, pictures: Path, tmp_path: Path) -> None:
    masks = write_masks(tmp_path / "masks", pictures, names=slice(0, 6))
    config = build_run(data=[{"loss_masks": str(masks)}], train={"batch_size": 12})
    plan = build_plan(config)
    assert len(plan.needs.windows) == 1  # six equal files
    report = build_report(plan)
    assert f"6 of 12 pictures have a mask for the loss, from {masks}: " in report and "; of the others all is learned" in report
    assert "1 mask for the loss, 256 bytes" in report  # six equal files
    training = prepare(config)
    for mask in masks.iterdir():
        mask.unlink()
    Store(config.output.cache).collect(list_keys(plan))
    with training.loader as loader:
        batches = loader.load(0)
    assert sorted((batch.mask_B1HW is not None, len(batch.places)) for batch in batches) == [(False, 6), (True, 6)]
