"""What attends: refused before loading where it cannot, named in the plan, and tried when a run starts."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch

import weber
from tests.kernels.standins import put_sage
from tests.memory.conftest import FAMILIES
from tests.runs import BuildRun, build_watcher
from weber.commands.sample import Look
from weber.config.model import ModelConfig
from weber.config.output import PaintingAttention
from weber.errors import ConfigError
from weber.families.table import build_family
from weber.kernels import trial
from weber.kernels.attention import BACKENDS
from weber.kernels.trial import Choice, Use, choose
from weber.planning import attention as planning
from weber.planning.attention import TRAINING, WISHED, build_use, choose_attention, choose_backend, choose_painting
from weber.planning.plan import build_plan
from weber.planning.rehearsal import Sample
from weber.planning.report import build_report
from weber.training.assemble import train
from weber.training.paint import Wish, sample

NUM_BLOCKS = 8
CPU = torch.device("cpu")
PROMPTS = {"prompts": ["a dog"], "steps": 1, "width": 64, "height": 64}


@pytest.fixture(autouse=True)
def _forget() -> Iterator[None]:
    """What is remembered of backends that are none."""
    choose.cache_clear()
    yield
    choose.cache_clear()


@pytest.mark.parametrize(
    ("sections", "got", "fix"),
    [
        ({"memory": {"attention": "flash"}}, 'memory.attention = "flash"', 'set memory.attention = "auto"'),
        ({"sampling": {"attention": "sage", **PROMPTS}}, 'sampling.attention = "sage"', 'set sampling.attention = "same"'),
    ],
)
def test_what_cannot_attend_here_is_refused(sections: dict[str, Any], got: str, fix: str, build_run: BuildRun) -> None:
    with pytest.raises(ConfigError, match="it runs on GPUs, and the model runs on cpu") as caught:
        weber.plan(build_run(**sections))
    assert (caught.value.got, caught.value.fix) == (got, fix)


@pytest.mark.parametrize(
    ("card", "memory", "why"),
    [
        ("RTX 4090", {"attention": "flash3"}, None),
        ("RTX 4090", {"attention": "cudnn", "dtype": "fp32"}, "it computes in 16 bits, and the model is in fp32"),
        ("RTX 2080", {"attention": "flash"}, "it computes in 16 bits, and the model is in fp32"),
        ("RTX 4090", {"attention": "efficient", "dtype": "fp32"}, None),
        ("H100", {"attention": "flash3", "compile": True}, "PyTorch's compiler does not see into its package"),
    ],
)
def test_cards_that_are_not_here(card: str, memory: dict[str, Any], why: str | None, build_run: BuildRun) -> None:
    """What is known of every GPU is refused, and what only this one could say is not."""
    config = build_run(memory={**memory, "device": "auto"})
    if why is None:
        plan = weber.plan(config, card=card)
        assert planning.describe_attention(plan.config, plan.workload, is_here=False) == f"attention: {memory['attention']}"
        return
    with pytest.raises(ConfigError, match=why):
        weber.plan(config, card=card)


def test_masks(build_run: BuildRun) -> None:
    config = build_run(memory={"attention": "flash", "device": "auto"}, objective={"text_mask": True})
    with pytest.raises(ConfigError, match="it takes no mask, and the padding behind captions is masked"):
        weber.plan(config, card="RTX 4090")
    for hides in (False, True):
        family = build_family(ModelConfig.model_validate({"variant": "pocket"}), hides_padding=hides)
        assert build_use(family, device=CPU, dtype=torch.float32).has_mask == hides


def test_sizes(build_run: BuildRun) -> None:
    family = build_family(ModelConfig.model_validate({"variant": "pocket"}))
    use = build_use(family, device=CPU, dtype=torch.bfloat16, samples=[Sample(64, 64, batch=3), Sample(128, 64), Sample(32, 32)])
    text = family.text_shapes("t5")["text"][0]
    heads, width = family.transformer_config["num_attention_heads"], family.transformer_config["attention_head_dim"]
    assert use == Use(CPU, torch.bfloat16, int(str(heads)), text + 8 * 4, int(str(width)))
    assert heads == family.load_skeleton().config.num_attention_heads
    assert all(FAMILIES[name]()[0].config.num_attention_heads > 0 for name in FAMILIES)


def test_the_plan_names_it(build_run: BuildRun) -> None:
    assert "\n  attention: cpu\n" in build_report(weber.plan(build_run()))
    config = build_run(memory={"device": "auto"}, sampling={"attention": "sage", **PROMPTS})
    said = build_report(weber.plan(config, card="H100"))
    assert "attention: what is usually fastest on the GPU, tried when the run starts; in pictures: sage" in said


def test_the_plan_of_a_gpu_names_what_is_tried(build_run: BuildRun) -> None:
    plan = build_plan(build_run())
    workload = replace(plan.workload, device=torch.device("cuda"), dtype=torch.bfloat16)
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(planning, "read_capability", lambda device: (8, 9))
        said = planning.describe_attention(plan.config, workload, is_here=True)
    assert said.startswith("attention: the first of flash, cudnn, efficient that is right with ")
    assert said.endswith(" tokens, tried when the run starts")


def test_the_first_that_is_right_is_taken(monkeypatch: pytest.MonkeyPatch) -> None:
    use = Use(CPU, torch.float32, num_heads=2, num_tokens=9, width=8)
    monkeypatch.setitem(BACKENDS, "wrong", replace(BACKENDS["cpu"], backward=lambda grad, *inputs: (grad, grad, grad)))
    assert choose_backend("cpu", use, key=TRAINING) == choose_backend("auto", use, key=TRAINING) == Choice("cpu")
    with pytest.raises(ConfigError, match="was tried, with 2 heads of 8 numbers and 9 tokens, and is wrong here: its gradients of"):
        choose_backend("wrong", use, key=TRAINING)
    assert choose_painting("wrong", use, key=WISHED) == Choice("wrong")
    with pytest.raises(ConfigError) as caught:
        choose_backend("sage", use, key=TRAINING)
    assert "it has no backward pass" in caught.value.what


def test_a_gpu_where_nothing_is_right_is_left_to_pytorch(monkeypatch: pytest.MonkeyPatch) -> None:
    use = Use(torch.device("cuda"), torch.bfloat16, num_heads=2, num_tokens=9, width=8, capability=(8, 0))
    monkeypatch.setattr(trial, "find_fault", lambda backend, use: "it is off")
    found = choose_backend("auto", use, key=TRAINING)
    assert found.name is None
    assert found.describe() == "PyTorch's own (flash refused: it is off; cudnn refused: it is off; efficient refused: it is off)"
    monkeypatch.setattr(trial, "find_fault", lambda backend, use: None if backend is BACKENDS["cudnn"] else "it is off")
    choose.cache_clear()
    assert choose_backend("auto", use, key=TRAINING).describe() == "cudnn (flash refused: it is off)"


def test_a_run_says_what_attends_and_paints_with_another(build_small: BuildRun, monkeypatch: pytest.MonkeyPatch) -> None:
    """SageAttention, by a stand-in: as if it ran on processors."""
    calls = put_sage(monkeypatch)
    monkeypatch.setitem(BACKENDS, "sage", replace(BACKENDS["sage"], device="cpu", dtypes=(torch.float32,), error=1e-4))
    config = build_small("sage", sampling={"attention": "sage", **PROMPTS}, train={"steps": 2, "batch_size": 1})
    watcher, said = build_watcher()
    train(config, resume=False, watcher=watcher)
    assert "Attention: cpu; in pictures: sage.\n" in said.getvalue()
    assert len(calls) == 1 + 2 * NUM_BLOCKS and not any(calls)  # tried, and then the base model and the last step
    found = choose_attention(config, build_plan(config).workload)
    assert (found.training.name, found.painting.name) == ("cpu", "sage")

    again, painted = build_watcher()[0], len(calls)
    wish = Wish(["a dog"], steps=1, width=64, height=64)
    sample(config.output.folder, wish, watcher=again)
    assert len(calls) > painted
    painted = len(calls)
    sample(config.output.folder, replace(wish, attention="same"), watcher=again)
    assert len(calls) == painted
    with pytest.raises(ConfigError, match="There is no such attention") as caught:
        sample(config.output.folder, replace(wish, attention="xformers"), watcher=again)
    assert caught.value.got == "--attention xformers"


def test_a_model_can_be_painted_with_by_name(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match="it runs on GPUs") as caught:
        sample("pocket", Wish(["a dog"], attention="sage"), watcher=build_watcher()[0], memory={"device": "cpu"})
    assert (caught.value.got, caught.value.fix) == ("--attention sage", "set --attention same")


def test_the_command_has_the_words_of_the_setting() -> None:
    assert str(PaintingAttention).removeprefix("typing.") in Look.__annotations__["attention"]
