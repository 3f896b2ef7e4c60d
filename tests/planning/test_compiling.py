"""Where nothing compiles, and where compiling would do something else, it is said before anything is loaded."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from torch._inductor import cpp_builder
from torch._inductor.exc import InvalidCxxCompiler

import weber
from tests.runs import BuildRun
from weber.config.load import build_config
from weber.config.memory import MemoryConfig
from weber.config.run import RunConfig
from weber.errors import ConfigError
from weber.planning import compiling
from weber.planning.budget import Budget
from weber.planning.compiling import check_compile

CPU, GPU = torch.device("cpu"), torch.device("cuda")
RUNS: dict[str, dict[str, dict[str, Any]]] = {
    "dropout": {"adapter": {"dropout": 0.1}},
    'adapter.kind = "lycoris"': {"adapter": {"kind": "lycoris", "lycoris": {"algo": "lokr"}}},
    "optim.fused_backward": {"optim": {"fused_backward": True}},
}
SETTINGS: dict[str, dict[str, Any]] = {
    'quantize = "nf4"': {"quantize": "nf4"},
    'gradient_checkpointing = "none"': {"gradient_checkpointing": "lean"},
    "swap_blocks": {"swap_blocks": 1},
    "offload_activations": {"offload_activations": True},
    "int8_matmul": {"quantize": "int8", "int8_matmul": True, "gradient_checkpointing": 2},
}


@pytest.fixture
def config() -> RunConfig:
    return build_config({"data": [{"path": "pictures"}], "memory": {"compile": True}})


@pytest.mark.parametrize("what", RUNS)
def test_what_does_not_go_together_is_refused(what: str) -> None:
    with pytest.raises(ConfigError) as caught:
        check_compile(build_config({"data": [{"path": "pictures"}], "memory": {"compile": True}, **RUNS[what]}), device=CPU)
    assert what in str(caught.value.got) and "memory.compile = true" in str(caught.value.got) and caught.value.fix


@pytest.mark.parametrize("what", SETTINGS)
def test_settings_of_memory_that_it_does_not_go_with(what: str) -> None:
    with pytest.raises(ConfigError) as caught:
        build_config({"data": [{"path": "pictures"}], "memory": {"compile": True, **SETTINGS[what]}})
    assert what in str(caught.value) and "remove" in str(caught.value)


def test_no_compiler(config: RunConfig, monkeypatch: pytest.MonkeyPatch) -> None:
    def fail() -> str:
        raise InvalidCxxCompiler

    check_compile(config, device=CPU)
    monkeypatch.setattr(cpp_builder, "get_cpp_compiler", fail)
    with pytest.raises(ConfigError, match=r"needs a C\+\+ compiler"):
        check_compile(config, device=CPU)


def test_no_headers(config: RunConfig, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(compiling.sysconfig, "get_path", lambda name: "/nowhere")
    with pytest.raises(ConfigError, match=r"Python\.h"):
        check_compile(config, device=CPU)


def test_gpus(config: RunConfig, monkeypatch: pytest.MonkeyPatch) -> None:
    """One that is not here is not looked at."""
    monkeypatch.setattr(torch.cuda, "is_available", lambda: False)
    check_compile(config, device=GPU)
    monkeypatch.setattr(torch.cuda, "is_available", lambda: True)
    monkeypatch.setattr(compiling, "find_spec", lambda name: None)
    with pytest.raises(ConfigError, match="needs Triton"):
        check_compile(config, device=GPU)
    monkeypatch.setattr(compiling, "find_spec", lambda name: object())
    monkeypatch.setattr(torch.cuda, "get_device_capability", lambda device: (6, 1))
    monkeypatch.setattr(torch.cuda, "get_device_name", lambda device: "Tesla P40")
    with pytest.raises(ConfigError, match="no code for this GPU"):
        check_compile(config, device=GPU)
    monkeypatch.setattr(torch.cuda, "get_device_capability", lambda device: (8, 9))
    check_compile(config, device=GPU)


def test_other_devices(config: RunConfig) -> None:
    with pytest.raises(ConfigError, match="not used on this device"):
        check_compile(config, device=torch.device("mps"))


def test_fit_chooses_what_compiles(build_run: BuildRun) -> None:
    plan = weber.plan(build_run(memory={"compile": True, "fit": "8GB"}))
    assert plan.config.memory.against_compile is None
    budget = Budget(plan.config, plan.workload)
    assert not MemoryConfig(compile=True).runs_own_blocks
    estimate = budget.build_estimate(MemoryConfig(gradient_checkpointing="none"))
    assert estimate.kept_bytes > budget.build_estimate(MemoryConfig()).kept_bytes > 0


def test_an_estimate_has_room_for_weights_that_are_unpacked_together(build_run: BuildRun) -> None:
    plan = weber.plan(build_run(memory={"gradient_checkpointing": "all"}))
    budget = Budget(plan.config, plan.workload)
    plain, packed, compiled = (
        budget.build_estimate(MemoryConfig(**settings)).find("training")
        for settings in ({}, {"quantize": "int8"}, {"quantize": "int8", "compile": True})
    )
    largest = compiled.parts["unpacked weights"]
    assert "unpacked weights" not in packed.parts and compiled.num_bytes > packed.num_bytes
    assert plain.parts["weights of the blocks"] / 8 < largest < plain.parts["weights of the blocks"] / 2, "one of eight blocks"
