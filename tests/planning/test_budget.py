from __future__ import annotations

import importlib.util
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from types import ModuleType
from typing import Any

import pytest
import torch

from weber.blocks.group import join
from weber.config.load import build_config
from weber.config.memory import MemoryConfig
from weber.config.model import ModelConfig
from weber.config.run import RunConfig
from weber.errors import ConfigError
from weber.families.table import build_family
from weber.kinds.table import KINDS
from weber.memory import simulate
from weber.memory.rates import GIB, build_rates
from weber.memory.simulate import ATTENTION
from weber.planning.budget import Budget, Workload, build_estimate
from weber.planning.costs import describe_memory, describe_step
from weber.planning.fitting import build_fitted
from weber.planning.rehearsal import Rehearsal, Sample
from weber.pocket.full_size import build_full_size
from weber.training.bench import Case, build_records, build_table, list_cases, measure_case

DOCS = Path(__file__).parents[2] / "docs"
SMALL = {"num_layers": 2, "num_single_layers": 5, "num_attention_heads": 2, "attention_head_dim": 64}
FLUX1 = {**SMALL, "axes_dims_rope": [16, 24, 24]}
FLUX2 = {**SMALL, "axes_dims_rope": [16, 16, 16, 16]}
SQUARE = Sample(1024, 1024)


def _build_config(**sections: Any) -> RunConfig:
    return build_config({"data": [{"path": "pictures"}], **sections})


def _build_workload(
    folder: Path,
    variant: str,
    config: RunConfig,
    *,
    samples: dict[Sample, int] | None = None,
    changes: dict[str, Any] | None = None,
    device: str = "cuda",
) -> Workload:
    """Of a GPU that need not be there."""
    family = build_family(ModelConfig(path=str(build_full_size(folder, variant, changes=changes)), variant=variant))
    trained = KINDS[config.adapter.kind].choose(config, family, skeleton=family.load_skeleton(), dtype=torch.bfloat16)
    rates = build_rates("RTX 4090")
    return Workload(family, torch.device(device), torch.bfloat16, trained, samples or {SQUARE: 1}, rates=rates, host_bytes=None)


@pytest.fixture
def one_thread() -> Iterator[None]:
    """Small steps are slower with more."""
    num_threads = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(num_threads)


@pytest.mark.usefixtures("one_thread")
@pytest.mark.parametrize(
    ("variant", "settings"),
    [
        ("flux1-dev", {"memory": {"gradient_checkpointing": "none"}}),
        ("flux1-dev", {"memory": {"gradient_checkpointing": "lean"}}),
        ("flux1-dev", {"memory": {"gradient_checkpointing": "all", "quantize": "int8"}}),
        ("flux1-dev", {"memory": {"gradient_checkpointing": 2, "quantize": "nf4"}}),
        ("flux2-klein-base-4b", {"memory": {"gradient_checkpointing": "all"}}),
        ("flux3-klein-base", {"memory": {"gradient_checkpointing": "none"}}),
        ("flux1-dev", {"adapter": {"kind": "full"}, "memory": {"gradient_checkpointing": "none"}}),
        ("flux1-dev", {"adapter": {"kind": "full"}, "optim": {"name": "adamw_8bit", "fused_backward": True}}),
    ],
)
def test_the_estimate_is_what_a_real_step_takes(variant: str, settings: dict[str, Any]) -> None:
    """Within a tenth of the most that PyTorch's allocator held in a step on the CPU; tens to hundreds of MiB."""
    case = Case(variant, 384, settings, FLUX1 if variant.startswith("flux1") else FLUX2)
    found = measure_case(case, device="cpu", num_steps=1)
    assert found.peak_bytes > 30 * 2**20
    assert found.estimated_bytes == pytest.approx(found.peak_bytes, rel=0.1)
    assert str(case.edge) in build_table([found]) and build_records([found])[0]["peak_bytes"] == found.peak_bytes


@pytest.mark.parametrize("mode", ["none", "lean", "all", 3])
def test_few_blocks_stand_for_all(mode: str | int, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    config = _build_config(memory={"gradient_checkpointing": mode})
    changes = {**FLUX1, "num_layers": 6, "num_single_layers": 9}
    workload = _build_workload(tmp_path, "flux1-dev", config, changes=changes, samples={Sample(256, 256): 1})
    few = build_estimate(config, workload)
    monkeypatch.setattr(simulate, "_NUM_ALIKE", 99)
    every = build_estimate(config, workload)
    assert few.work == every.work
    # Where kept and checkpointed blocks take turns, each was rehearsed among its like.
    assert few.peak.num_bytes == pytest.approx(every.peak.num_bytes, rel=0.01 if mode == 3 else 1e-9)


def test_blocks_of_different_adapters_are_told_apart(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    config = _build_config(adapter={"targets": ["single_transformer_blocks.4.proj_out", "transformer_blocks.2.attn.*"]})
    changes = {**FLUX1, "num_layers": 6, "num_single_layers": 9}
    workload = _build_workload(tmp_path, "flux1-dev", config, changes=changes, samples={Sample(256, 256): 1})
    few = build_estimate(config, workload)
    monkeypatch.setattr(simulate, "_NUM_ALIKE", 99)
    assert few.peak.parts == build_estimate(config, workload).peak.parts


@pytest.mark.parametrize(
    ("variant", "width", "blocks", "factor"),
    [("flux1-dev", 3072, 57, 12), ("flux2-dev", 6144, 56, 13), ("flux2-klein-base-4b", 3072, 25, 13)],
)
def test_flops_are_those_of_the_formula(variant: str, width: int, blocks: int, factor: int, tmp_path: Path) -> None:
    """performance.md 1: a LoRA without recomputation does 2 linear passes; attention 1 forward, 2.5 backward as it is executed."""
    config = _build_config(memory={"gradient_checkpointing": "none"})
    work = build_estimate(config, _build_workload(tmp_path, variant, config)).work
    tokens = 4096 + 512
    assert work.flops["bfloat16"] == pytest.approx(2 * 2 * factor * width**2 * blocks * tokens, rel=0.01)
    assert work.flops[ATTENTION] == pytest.approx(3.5 * 4 * tokens**2 * width * blocks, rel=0.01)
    assert work.flops["float32"] < 0.02 * work.flops["bfloat16"], "the adapter's own"


def test_what_is_aimed_at_for_the_model_at_full_size(tmp_path: Path) -> None:
    """Issue 5: at 1024 pixels bf16 takes at most 20 GiB with the modulation on the host, at 512 nf4 6 GiB, of what PyTorch holds."""
    config = _build_config()
    small = Sample(512, 512)
    budget = Budget(config, _build_workload(tmp_path, "flux1-dev", config, samples={small: 1, SQUARE: 1}))

    def count(sample: Sample, **settings: Any) -> float:
        phases = budget.build_estimate(MemoryConfig(modulation="host", **settings)).phases
        [phase] = [one for one in phases if one.name == f"training at {sample.describe()}"]
        return (phase.num_bytes - phase.parts["the GPU's own"]) / GIB

    assert count(SQUARE) <= 20 and count(small, quantize="nf4") <= 6
    assert count(SQUARE, quantize="int8", offload_activations=True) <= 11
    assert count(SQUARE, quantize="nf4", offload_activations=True) <= 7.5
    profile = budget._interpolate(SQUARE, MemoryConfig(gradient_checkpointing="lean"))
    assert profile.saved_bytes <= 14.2 * GIB  # 13.7 were those of the library's blocks, at 0.8 % more FLOPs


def test_layers_that_a_run_joins_are_joined_where_it_is_rehearsed(tmp_path: Path) -> None:
    config = _build_config()
    workload = _build_workload(tmp_path, "flux1-dev", config, changes=FLUX1)
    rehearsal = Rehearsal(config, workload.family, workload.device, workload.dtype, workload.trained)
    model, _ = rehearsal._load_model(is_packed=False, multiplies_packed=False)
    for name, part in model.named_modules():
        if name.endswith(".attn"):
            assert join([layer.base_layer.weight for layer in (part.to_q, part.to_k, part.to_v)]) is not None, name


def test_sizes_between_are_as_if_they_had_been_rehearsed(tmp_path: Path) -> None:
    config = _build_config(memory={"gradient_checkpointing": "lean"})
    ends, between = (Sample(256, 256), Sample(768, 768)), Sample(512, 448)
    changes = {**FLUX1, "num_layers": 2}
    samples = dict.fromkeys([*ends, between], 1)
    one = Budget(config, _build_workload(tmp_path / "one", "flux1-dev", config, changes=changes, samples=samples))
    other = Budget(config, _build_workload(tmp_path / "other", "flux1-dev", config, changes=changes, samples={between: 1}))
    blended, exact = one._interpolate(between, config.memory), other._interpolate(between, config.memory)
    assert blended.peak_bytes == pytest.approx(exact.peak_bytes, rel=0.02)
    assert blended.work.flops[ATTENTION] == pytest.approx(exact.work.flops[ATTENTION], rel=1e-6)
    assert blended.work.flops["bfloat16"] == pytest.approx(exact.work.flops["bfloat16"], rel=1e-3)
    for card in ("RTX 4090", "NVIDIA H100 80GB HBM3"):
        rates = build_rates(card)
        assert rates is not None
        plain = [replace(one.work, num_kernels=0) for one in (blended, exact)]
        assert rates.count_seconds(plain[0]) == pytest.approx(rates.count_seconds(plain[1]), rel=0.01), "starting kernels apart"


def test_every_part_is_named(tmp_path: Path) -> None:
    config = _build_config(memory={"swap_blocks": 10, "modulation": "host", "quantize": "nf4"}, train={"accumulation": 2})
    estimate = build_estimate(config, _build_workload(tmp_path, "flux1-dev", config))
    text = "\n".join([*describe_memory(estimate), *describe_step(estimate)])
    for part in ("weights of the blocks", "slots for swapped blocks", "other weights", "adapters", "optimizer", "gradients", "activations"):
        assert part in text
    assert "encoding captions (t5)" in text and "text encoder 8.87 GiB" in text
    assert "swapped blocks" in text and "modulation 6.0" in text and "TFLOP" in text and "RTX 4090" in text


def test_an_accumulated_step_holds_all_gradients(tmp_path: Path) -> None:
    once, twice = _build_config(), _build_config(train={"accumulation": 2})
    workload = _build_workload(tmp_path, "flux1-dev", once, changes=FLUX1)
    one, two = build_estimate(once, workload).find("training"), build_estimate(twice, workload).find("training")
    assert two.parts["gradients"] == workload.trained.num_bytes > one.parts["gradients"]
    assert two.parts["activations"] <= one.parts["activations"]


def test_a_run_is_fitted_and_says_why(tmp_path: Path) -> None:
    config = _build_config(memory={"fit": "12GB"})
    workload = _build_workload(tmp_path, "flux1-dev", config)
    fitted, fit = build_fitted(config, workload)
    assert fit is not None and fitted.memory == fit.memory and fitted.memory.fit is None
    assert fit.estimate.peak.num_bytes < 12 * 10**9 - GIB // 2
    assert build_estimate(fitted, workload).peak.num_bytes == fit.estimate.peak.num_bytes
    assert build_fitted(_build_config(), workload) == (_build_config(), None)


def test_full_training_that_does_not_fit_is_told_which_optimizer_would(tmp_path: Path) -> None:
    config = _build_config(memory={"fit": "24GB"}, adapter={"kind": "full"}, optim={"name": "adamw_bf16"})
    with pytest.raises(ConfigError) as caught:
        build_fitted(config, _build_workload(tmp_path, "flux2-klein-base-4b", config))
    message = str(caught.value)
    assert "a card of 40 GB" in message and "optim.fused_backward = true" in message and 'optim.name = "adafactor"' in message


def test_only_changes_that_close_the_gap_are_offered(tmp_path: Path) -> None:
    """A batch of 8 is the reason here: a lower rank, or another optimizer, would save next to nothing."""
    config = _build_config(memory={"fit": "1500MB"}, train={"batch_size": 8}, adapter={"rank": 64})
    changes = {**FLUX1, "joint_attention_dim": 512}  # not the published encoders, which would not fit either
    workload = _build_workload(tmp_path, "flux1-dev", config, changes=changes, samples={Sample(1024, 1024, batch=8): 1})
    with pytest.raises(ConfigError) as caught:
        build_fitted(config, workload)
    assert caught.value.fix == "set train.batch_size = 1 with train.accumulation = 8; or set data.0.resolution = 768"
    smaller = _build_config(memory={"fit": "1500MB"}, train={"accumulation": 8}, adapter={"rank": 64})
    assert build_fitted(smaller, replace(workload, samples={SQUARE: 1}))[1] is not None


def test_cases_of_the_bench_are_models_precisions_and_sizes() -> None:
    cases = list_cases(["flux1-dev", "flux2-klein-4b"], precisions=["none", "nf4"], edges=[512], num_blocks=1)
    assert [(one.variant, one.describe()) for one in cases] == [
        ("flux1-dev", "defaults"),
        ("flux1-dev", "modulation host"),
        ("flux1-dev", "quantize nf4"),
        ("flux1-dev", "quantize nf4, modulation host"),
        ("flux2-klein-4b", "defaults"),
        ("flux2-klein-4b", "quantize nf4"),
    ]
    assert cases[0].changes == {"num_layers": 1, "num_single_layers": 1}
    with pytest.raises(ConfigError, match="no such model of known size"):
        list_cases(["pocket"], precisions=["none"], edges=[512])


def _load_pages() -> ModuleType:
    spec = importlib.util.spec_from_file_location("docs_build", DOCS / "build.py")
    assert spec is not None and spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


def test_the_tables_in_the_docs_are_as_they_would_be_made_now() -> None:
    """Golden, for the smallest model and one more size; `make docs` makes them all."""
    pages, written = _load_pages(), (DOCS / "memory.md").read_text(encoding="utf-8")
    rows = [
        *pages.build_fit_rows("flux2-klein-base-4b", 1024),
        *pages.build_fit_rows("flux1-dev", 512),
        *pages.build_full_rows("flux2-klein-base-4b"),
    ]
    assert len(rows) == 2 * len(pages.CARDS) + 5
    assert [row for row in rows if row not in written.splitlines()] == []
    assert "{{" not in written and written.count("\n| FLUX") == 4 * 2 * len(pages.CARDS) + 4 * 5
