"""Whole runs and blocks on a GPU; without one only the parts that a CPU can do."""

from __future__ import annotations

import json
import shutil
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import load_file

from tests.blocks.test_families import Net
from tests.memory.conftest import FAMILIES
from tests.runs import BuildRun, build_watcher
from weber.training import loop
from weber.training.assemble import train

NO_GPU = pytest.mark.skipif(not torch.cuda.is_available(), reason="this machine has no CUDA GPU")
DEVICES = ["cpu", pytest.param("cuda", marks=NO_GPU)]
SETTINGS: dict[str, dict[str, Any]] = {
    "adamw": {},
    "lean, our own optimizer": {
        "memory": {"gradient_checkpointing": "lean"},
        "optim": {"name": "adamw_8bit", "lr": 1e-3, "ema_decay": 0.9},
    },
    "nf4, all": {"memory": {"quantize": "nf4", "gradient_checkpointing": "all"}},
    "swapped": {"memory": {"swap_blocks": 2}},
}


def _train(build_small: BuildRun, name: str, *, resume: bool = False, **sections: Any) -> Path:
    config = build_small(name, **sections)
    train(config, resume=resume, watcher=build_watcher()[0])
    return config.output.folder


def _read_losses(folder: Path) -> list[float]:
    return [json.loads(line)["loss"] for line in (folder / "metrics.jsonl").read_text(encoding="utf-8").splitlines()]


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
@pytest.mark.parametrize("device", DEVICES)
@pytest.mark.parametrize("family", FAMILIES)
def test_blocks_are_the_library_s(family: str, device: str, dtype: torch.dtype) -> None:
    """As far as each precision goes: the bounds on a CPU are in tests/blocks."""
    net = Net(family, dtype=dtype).put_lora()
    net.model.to(device)
    noisy, t, condition = net.draw()
    inputs = noisy.to(device), t.to(device), {name: one.to(device) for name, one in condition.items()}
    own, theirs = (net.learn(inputs, is_fused=is_fused) for is_fused in (True, False))
    bound = 0.05 if dtype == torch.bfloat16 else 1e-4
    for name in theirs:
        assert torch.linalg.vector_norm((own[name] - theirs[name]).float()) <= bound * torch.linalg.vector_norm(theirs[name].float()), name


@NO_GPU
@pytest.mark.parametrize("name", SETTINGS)
def test_a_run_learns_and_goes_on(name: str, build_small: BuildRun) -> None:
    """As on the CPU in fp32, to rounding; and from its checkpoint with the same bits."""
    sections = SETTINGS[name]

    def settle(device: str) -> dict[str, Any]:
        return {**sections, "memory": {**sections.get("memory", {}), "device": device, "dtype": "fp32"}}

    on_cpu = _train(build_small, "cpu", **settle("cpu"))
    on_gpu = _train(build_small, "gpu", **settle("cuda"))
    assert _read_losses(on_gpu) == pytest.approx(_read_losses(on_cpu), rel=1e-3)
    finished = load_file(on_gpu / "adapter.safetensors")
    shutil.rmtree(on_gpu / "checkpoint-000004")
    (on_gpu / "adapter.safetensors").unlink()
    _train(build_small, "gpu", resume=True, **settle("cuda"))
    again = load_file(on_gpu / "adapter.safetensors")
    assert all(torch.equal(finished[key], again[key]) for key in finished)


@NO_GPU
@pytest.mark.parametrize("name", list(SETTINGS)[:3])
def test_the_host_does_not_wait(name: str, build_small: BuildRun, monkeypatch: pytest.MonkeyPatch) -> None:
    """PyTorch itself raises where it would, in all steps after the first."""
    take = loop.start_step

    def watch(*args: Any, step: int, **beside: Any) -> Any:
        torch.cuda.set_sync_debug_mode("error" if step > 0 else "default")
        try:
            return take(*args, step=step, **beside)
        finally:
            torch.cuda.set_sync_debug_mode("default")

    monkeypatch.setattr(loop, "start_step", watch)
    sections = SETTINGS[name]
    _train(build_small, "watched", **{**sections, "memory": {**sections.get("memory", {}), "device": "cuda", "dtype": "bf16"}})
