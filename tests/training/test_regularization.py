"""Regularization: the model stays as it is where it is asked to, and what the teacher says is what the base model says."""

from __future__ import annotations

import json
import shutil
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import load_file
from torch import Tensor, nn

from tests.runs import BuildRun, build_watcher
from tests.training.test_masks import prepare, write_masks
from tests.training.test_resume import run_interrupted, run_whole
from weber.adapters.factors import Factors
from weber.adapters.files import save_adapter
from weber.cache.store import Store
from weber.checkpoint.resume import Found
from weber.config.run import RunConfig
from weber.errors import ConfigError
from weber.families.flux1.keys import PAIRINGS
from weber.memory.load import load_predictor
from weber.planning.plan import build_lessons, build_plan, list_keys, list_lacking
from weber.planning.report import build_report
from weber.training.assemble import assemble, encode_cache, train
from weber.training.batch import Batch
from weber.training.prepared import Training
from weber.training.question import build_question, draw_timesteps
from weber.training.step import train_step
from weber.training.teacher import Teacher

SECTIONS: dict[str, dict[str, Any]] = {
    "plain": {},
    "dropout": {"adapter": {"dropout": 0.5}},
    "lean": {"memory": {"gradient_checkpointing": "lean"}},
    "lokr": {"adapter": {"rank": 16, "kind": "lycoris", "lycoris": {"algo": "lokr"}}},
    "routes": {"objective": {"tread": [{"ratio": 0.5}]}},
    "int8": {"memory": {"quantize": "int8"}},
    "nf4, bf16, on the disk": {"memory": {"quantize": "nf4", "dtype": "bf16", "swap_blocks": 4, "swap_to": "disk"}},
}


def _write_lora(path: Path) -> str:
    """A LoRA that changes what the pocket model says."""
    generator = torch.Generator().manual_seed(0)
    factors = Factors(torch.randn(4, 192, generator=generator), 0.02 * torch.randn(192, 4, generator=generator), 8.0)
    modules = {f"single_transformer_blocks.{number}.attn.to_q": factors for number in range(2)}
    save_adapter(path, modules, layout="comfyui", facts={}, metadata={}, pairings=PAIRINGS)
    return str(path)


def _build(build_run: BuildRun, pictures: Path, name: str = "run", **sections: Any) -> RunConfig:
    """The same pictures are learned and kept."""
    size = {"resolution": 64, "bucket_step": 16}
    kept = {"path": str(pictures), "name": "kept", "regularization": True, **size, **sections.pop("kept", {})}
    return build_run(name, data=[{"caption_dropout": 0.1, **size}, kept], **sections)


def _assemble(config: RunConfig) -> Training:
    watcher, _ = build_watcher()
    plan, store = build_plan(config), Store(config.output.cache)
    encode_cache(plan, store, watcher=watcher)
    return assemble(plan, store, start=Found(0, None, {}), watcher=watcher)


def _describe(model: Path) -> dict[str, Any]:
    return {"path": str(model), "variant": None}


def _find_batch(training: Training) -> tuple[int, Batch]:
    """A batch of pictures that the model is to be kept as it is on, and its step."""
    with training.loader as loader:
        return next((step, batch) for step in range(10) for batch in loader.load(step) if batch.is_regularization)


@pytest.mark.parametrize("kind", list(SECTIONS))
def test_before_anything_is_learned_the_loss_is_zero(build_run: BuildRun, pictures: Path, tmp_path: Path, kind: str) -> None:
    model = {"assistant": _write_lora(tmp_path / "assistant.safetensors")} if kind == "plain" else {}
    training = _assemble(_build(build_run, pictures, model=model, **SECTIONS[kind]))
    step, batch = _find_batch(training)
    numbers = train_step(training.learner, [batch], step=step)
    assert numbers == {"loss_regularization": 0.0, "grad_norm": 0.0}


@pytest.mark.parametrize("adapter", [{"dropout": 0.5}, {"init": "pissa"}])
def test_the_teacher_is_the_base_model_whatever_was_learned(build_run: BuildRun, pictures: Path, adapter: dict[str, Any]) -> None:
    training = prepare(_build(build_run, pictures, adapter=adapter))
    step, batch = _find_batch(training)
    learner, plan = training.learner, training.plan
    (t_B,) = draw_timesteps(learner, [batch], step=step)
    torch.manual_seed(7)
    before = torch.get_rng_state()
    question = build_question(learner, batch, t_B=t_B, step=step)
    assert torch.equal(torch.get_rng_state(), before), "the student would draw other dropout"
    assert learner.predictor.transformer.training
    base = load_predictor(plan.family, device=plan.device, dtype=plan.dtype)
    base.is_fused = "dropout" not in adapter  # with dropout the library runs the blocks, of teacher and student
    with torch.no_grad():
        assert torch.equal(question.target_BCHW, base(question.noisy_BCHW, t_B, question.condition).float())
        learner.predictor.transformer.eval()
        answer = learner.predictor(question.noisy_BCHW, t_B, question.condition)
    assert (answer - question.target_BCHW).abs().max() > 1e-3, "the adapter was left off"
    assert not question.target_BCHW.requires_grad


def test_masks_and_weights_act_on_it_too(build_run: BuildRun, pictures: Path, tmp_path: Path) -> None:
    masks = str(write_masks(tmp_path / "masks", pictures))
    losses = {}
    for name, kept in {"plain": {}, "masked": {"loss_masks": masks}, "weighed": {"loss_weight": 0.5}}.items():
        training = prepare(_build(build_run, pictures, name, kept=kept))
        step, batch = _find_batch(training)
        losses[name] = train_step(training.learner, [batch], step=step)["loss_regularization"]
    assert losses["weighed"] == losses["plain"] / 2
    assert losses["masked"] not in (losses["plain"], losses["weighed"])


def _read(folder: Path) -> list[dict[str, float]]:
    lines = [json.loads(line) for line in (folder / "metrics.jsonl").read_text().splitlines()]
    return [{name: value for name, value in line.items() if name not in ("seconds", "peak_memory_bytes")} for line in lines]


ROUTES = [{"ratio": 0.5, "first": 0, "last": -1}]


@pytest.mark.parametrize("objective", [{}, {"teacher_draws": 2, "timesteps": "uniform"}, {"teacher_draws": 2, "tread": ROUTES}])
def test_both_losses_are_logged_and_a_resumed_run_is_the_same(
    build_run: BuildRun, tiny_model: Path, pictures: Path, objective: dict[str, Any]
) -> None:
    sections: dict[str, Any] = {"model": _describe(tiny_model), "objective": objective, "adapter": {"dropout": 0.1}}
    sections["train"] = {"steps": 8, "batch_size": 1}
    whole = run_whole(_build(build_run, pictures, "whole", **sections))
    config = _build(build_run, pictures, "parts", **sections)
    parts, _ = run_interrupted(config, 4)
    watcher, _ = build_watcher()
    training = _read(whole)
    assert {"loss" in line for line in training} == {True, False}
    assert all(("loss" in line) != ("loss_regularization" in line) for line in training)
    train(config, resume=True, watcher=watcher)
    assert _read(parts) == training
    one, other = (load_file(folder / "adapter.safetensors") for folder in (whole, parts))
    assert all(torch.equal(one[name], other[name]) for name in one)


class _Counter(nn.Module):
    """Stands before the network and counts the passes."""

    def __init__(self, predictor: Any) -> None:
        super().__init__()
        self.predictor, self.transformer, self.routes, self.num_passes = predictor, predictor.transformer, predictor.routes, 0

    def forward(self, noisy: Tensor, t: Tensor, condition: Mapping[str, Tensor]) -> Tensor:
        self.num_passes += 1
        velocity: Tensor = self.predictor(noisy, t, condition)
        return velocity


FIXED: dict[str, Any] = {"objective": {"teacher_draws": 3}, "train": {"batch_size": 4}}


def test_fixed_pairs_are_asked_once_and_no_step_asks_again(
    build_run: BuildRun, tiny_model: Path, pictures: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    config = _build(build_run, pictures, model=_describe(tiny_model), kept={"caption_dropout": 0.5}, **FIXED)
    shutil.rmtree(config.output.cache)  # it will hold nothing but what this run needs
    plan = build_plan(config)
    assert "72 answers of the teacher, 288.0 KiB" in build_report(plan)
    assert "to be asked now: 72 answers" in build_report(plan)
    asked: list[int] = []
    ask = Teacher.ask
    monkeypatch.setattr(Teacher, "ask", lambda self, noisy, t, **told: asked.append(len(noisy)) or ask(self, noisy, t, **told))
    training = prepare(config)
    assert asked == [1] * 72  # 12 pictures, their caption or none, 3 pairs
    assert "to be asked now: 0 answers" in build_report(plan)
    again = prepare(config)
    assert len(asked) == 72

    for one in (training, again):
        step, batch = _find_batch(one)
        counter = _Counter(one.learner.predictor)
        object.__setattr__(one.learner, "predictor", counter)
        train_step(one.learner, [batch], step=step)
        assert counter.num_passes == 1
    assert len(asked) == 72
    store = Store(config.output.cache)
    assert store.collect(list_keys(plan)).num_removed == 0
    assert not list_lacking(plan, store)


def test_a_fixed_answer_is_what_the_base_model_says_of_that_pair(build_run: BuildRun, pictures: Path) -> None:
    training = prepare(_build(build_run, pictures, **FIXED))
    step, batch = _find_batch(training)
    plan, learner = training.plan, training.learner
    assert batch.fixed is not None and batch.fixed.target_BCHW is not None
    (t_B,) = draw_timesteps(learner, [batch], step=step)
    (again,) = draw_timesteps(learner, [batch], step=step + 1)
    one, other = (build_question(learner, batch, t_B=t_B, step=number) for number in (step, step + 1))
    assert torch.equal(t_B, again) and torch.equal(one.noisy_BCHW, other.noisy_BCHW), "the pair is fixed"
    base = load_predictor(plan.family, device=plan.device, dtype=plan.dtype)
    with torch.no_grad():
        assert torch.allclose(one.target_BCHW, base(one.noisy_BCHW, t_B, one.condition), atol=1e-5)
    lessons = build_lessons(plan)
    assert lessons is not None
    kept = next(example for example in plan.dataset.examples if example.is_regularization)
    levels = [lessons.draw_place(lesson) for lesson in lessons.list_all([kept])]
    assert [int(3 * level) for level in levels] == [0, 1, 2], "the pairs of a picture are spread over the law"


def test_every_setting_that_changes_an_answer_is_in_its_key(build_run: BuildRun, pictures: Path, tmp_path: Path) -> None:
    assistant = _write_lora(tmp_path / "assistant.safetensors")

    def list_answers(**sections: Any) -> set[str]:
        plan = build_plan(_build(build_run, pictures, **{**FIXED, **sections}))
        lessons = build_lessons(plan)
        assert lessons is not None
        return {lessons.build_key(one, dtype=plan.dtype) for one in lessons.list_all(plan.dataset.examples)}

    changes: list[dict[str, Any]] = [
        {"train": {"seed": 43}},
        {"objective": {"teacher_draws": 3, "timesteps": "uniform"}},
        {"objective": {"teacher_draws": 3, "guidance": 3.0}},
        {"memory": {"quantize": "int8"}},
        {"memory": {"quantize": "nf4"}},
        {"memory": {"dtype": "bf16"}},
        {"model": {"assistant": assistant}},
        {"model": {"assistant": assistant, "assistant_strength": 0.5}},
        {"kept": {"captions": "none"}},
    ]
    seen = list_answers()
    for change in changes:
        answers = list_answers(**change)
        assert not answers & seen, change
        seen |= answers
    same = [{"objective": {"teacher_draws": 3, "loss": "l1"}}, {"adapter": {"rank": 8}}, {"optim": {"lr": 1.0}}]
    assert all(list_answers(**change) <= seen for change in same)
    assert list_answers() < list_answers(objective={"teacher_draws": 3}, kept={"caption_dropout": 0.5})


@pytest.mark.parametrize(
    ("sections", "said"),
    [
        ({"data": [{"regularization": True}]}, "nothing is learned"),
        ({"objective": {"teacher_draws": 2}}, "without a set with regularization"),
    ],
)
def test_what_cannot_act_is_refused(build_run: BuildRun, sections: dict[str, Any], said: str) -> None:
    with pytest.raises(ConfigError, match=said):
        build_run(**sections)
