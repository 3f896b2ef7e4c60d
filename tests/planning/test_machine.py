"""Which machine a run is planned for: the card that is named, where it is not here."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch

from tests.runs import BuildRun
from weber.config.load import load_config
from weber.config.memory import MemoryConfig
from weber.config.run import RunConfig
from weber.errors import ConfigError, ModelError
from weber.families.flux1.variants import POCKET
from weber.planning.budget import build_estimate
from weber.planning.costs import describe_costs
from weber.planning.machine import choose_machine
from weber.planning.model import find_model
from weber.planning.plan import build_plan
from weber.planning.report import build_report

GB = 10**9
CUDA, CPU = torch.device("cuda"), torch.device("cpu")


@pytest.fixture(autouse=True)
def no_gpu(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(torch.cuda, "is_available", lambda: False)
    monkeypatch.setattr(torch.backends.mps, "is_available", lambda: False)


@pytest.fixture
def rtx_4090(monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    """A machine with that card."""
    monkeypatch.setattr(torch.cuda, "is_available", lambda: True)
    monkeypatch.setattr(torch.cuda, "device_count", lambda: 1)
    monkeypatch.setattr(torch.cuda, "get_device_name", lambda *device: "NVIDIA GeForce RTX 4090")
    monkeypatch.setattr(torch.cuda, "mem_get_info", lambda *device: (25 * GB, 25 * GB))
    monkeypatch.setattr(torch.cuda, "memory_reserved", lambda *device: 0)
    monkeypatch.setattr(torch.cuda, "is_bf16_supported", lambda **how: True)
    yield


@pytest.mark.parametrize(
    ("fit", "card", "dtype", "num_gb", "rates"),
    [
        ("RTX 4090", None, torch.bfloat16, 24, "RTX 4090"),
        ("24GB", None, torch.bfloat16, 24, "RTX 4090"),
        (24, None, torch.bfloat16, 24, "RTX 4090"),
        (None, "RTX 3060", torch.bfloat16, 8, "RTX 3060"),
        ("auto", "12GB", torch.bfloat16, 12, "RTX 4070"),
        ("10GB", "RTX 4090", torch.bfloat16, 24, "RTX 4090"),
        (None, "T4", torch.float32, 16, "Tesla T4"),
    ],
)
def test_a_card_that_is_not_here_is_planned_for(fit: Any, card: str | None, dtype: torch.dtype, num_gb: int, rates: str) -> None:
    machine = choose_machine(MemoryConfig(fit=fit), card)
    assert (machine.device, machine.dtype, machine.device_bytes) == (CUDA, dtype, num_gb * GB)
    assert machine.rates is not None and machine.rates.name == rates and machine.host_bytes is None
    with pytest.raises(ConfigError, match="This machine has no GPU"):
        machine.check_here()


@pytest.mark.parametrize("settings", [{}, {"fit": "auto"}, {"fit": "24GB", "device": "cpu"}, {"device": "cpu"}])
def test_this_machine_is_planned_for_unless_another_is_asked_for(settings: dict[str, Any]) -> None:
    machine = choose_machine(MemoryConfig(**settings))
    assert (machine.device, machine.dtype, machine.device_bytes, machine.wish) == (CPU, torch.float32, None, None)
    machine.check_here()


@pytest.mark.parametrize(("settings", "card"), [({"fit": "RTX 4090", "device": "cpu"}, None), ({"device": "mps"}, "RTX 4090")])
def test_a_card_is_no_processor(settings: dict[str, Any], card: str | None) -> None:
    with pytest.raises(ConfigError, match="A card is a GPU"):
        choose_machine(MemoryConfig(**settings), card)


@pytest.mark.usefixtures("rtx_4090")
def test_the_card_that_is_here_is_itself() -> None:
    for fit in ("RTX 4090", "24GB", "auto", None):
        machine = choose_machine(MemoryConfig(fit=fit))
        assert machine.wish is None and machine.device_bytes == 25 * GB and machine.dtype == torch.bfloat16
    other = choose_machine(MemoryConfig(fit="RTX 3060"))
    assert other.wish is not None
    with pytest.raises(ConfigError) as caught:
        other.check_here()
    assert "This machine has NVIDIA GeForce RTX 4090" in caught.value.what and 'memory.fit = "auto"' in caught.value.fix


def test_a_laptop_plans_a_gpu(build_run: BuildRun) -> None:
    config = build_run(memory={"device": "auto", "fit": "RTX 4090"}, sampling={"prompts": ["a cat"], "steps": 4})
    plan = build_plan(config)
    assert (plan.device, plan.dtype) == (CUDA, torch.bfloat16)
    report = build_report(plan)
    assert "pocket (comes with weber) on RTX 4090 (24 GB), which is not here, in bf16" in report
    assert "to fit into 22.35 GiB" in report and "on RTX 4090 (from its datasheet" in report
    assert "what limits it: " in report and "the whole run: about " in report and " for 10 steps" in report
    with pytest.raises(ConfigError, match="This machine has no GPU, and the run is planned for RTX 4090"):
        build_plan(config, is_run=True)


def test_settings_stay_as_they_are_for_a_card_and_what_is_too_much_is_said(build_run: BuildRun) -> None:
    config = build_run(memory={"device": "auto"}, train={"batch_size": 12})
    plan = build_plan(config, card="RTX 4060 900MB")
    assert plan.fit is None and plan.config.memory.gradient_checkpointing == config.memory.gradient_checkpointing
    report = build_report(plan)
    assert "NOT ENOUGH MEMORY" not in report
    tight = replace(plan, workload=replace(plan.workload, device_bytes=660 * 10**6))
    lines = "\n".join(describe_costs(tight, build_estimate(plan.config, plan.workload)))
    assert "NOT ENOUGH MEMORY: training at 64 x 64, batch 12 takes" in lines and "RTX 4060 (0.9 GB) has 0.61 GiB" in lines


def test_a_plan_that_exceeds_the_machine_says_so(build_run: BuildRun, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("weber.planning.machine.read_host_bytes", lambda: 10**7)
    report = build_report(build_plan(build_run()))
    assert "NOT ENOUGH MEMORY: the run takes" in report and "of the machine, which has 9.5 MiB" in report
    assert '--card "RTX 4090"' in report


def _build_config(pictures: Path, folder: Path, *overrides: str) -> RunConfig:
    own = [f"data.0.path={pictures}", f"output.folder={folder / 'run'}", f"output.cache={folder / 'cache'}", "data.0.minimum_edge=16"]
    return load_config(None, [*own, "data.0.bucket_step=16", *overrides])


@pytest.mark.parametrize(
    ("overrides", "variant"),
    [
        (["model.variant=flux2-klein-base-4b"], "flux2-klein-base-4b"),
        (["model.path=black-forest-labs/FLUX.2-klein-base-4B"], "flux2-klein-base-4b"),
        (["model.variant=flux1-schnell"], "flux1-schnell"),
        ([], "flux1-krea"),
    ],
)
def test_a_model_that_cannot_be_had_is_planned_by_its_sizes(
    overrides: list[str], variant: str, pictures: Path, tmp_path: Path
) -> None:
    plan = build_plan(_build_config(pictures, tmp_path, *overrides), card="RTX 4090")
    assert plan.family.variant == variant and not plan.family.is_local and plan.model.lacking is not None
    assert plan.num_parameters > 10**7
    with pytest.raises(ModelError, match="is not on this machine and could not be downloaded"):
        build_plan(_build_config(pictures, tmp_path, *overrides, "memory.device=cpu"), is_run=True)


def test_the_report_says_that_sizes_are_all_that_is_known(pictures: Path, tmp_path: Path) -> None:
    config = _build_config(pictures, tmp_path, "model.variant=flux2-klein-base-4b", "memory.fit=24GB")
    report = build_report(build_plan(config))
    assert "flux2-klein-base-4b (from the hub) on a GPU with 24 GB, which is not here, in bf16" in report
    assert "planned from the sizes that weber ships: the model black-forest-labs/FLUX.2-klein-base-4B is not on this machine" in report
    assert "tokenizers, which are not here" in report and "the model is not on this machine yet" in report


@pytest.mark.parametrize(
    "model", [{"path": "nobody/nothing"}, {"path": "/not/there"}, {"variant": "flux1-dev", "vae": "nobody/nothing"}, {"variant": "zzz"}]
)
def test_a_mistake_is_no_model_of_sizes_alone(model: dict[str, str], pictures: Path, tmp_path: Path) -> None:
    config = _build_config(pictures, tmp_path, *(f"model.{key}={value}" for key, value in model.items()))
    with pytest.raises((ModelError, ConfigError)) as caught:
        find_model(config, is_run=False)
    assert "sizes" not in str(caught.value)


def test_a_model_that_is_here_is_itself(pictures: Path, tmp_path: Path) -> None:
    model = find_model(_build_config(pictures, tmp_path, f"model.path={POCKET}"), is_run=False)
    assert model.lacking is None and model.family.is_local
