"""A run in less memory: the same losses to the last bit where only places change, nearly the same where bits are fewer."""

from __future__ import annotations

import json
from typing import Any

import numpy as np
import pytest

from tests.runs import BuildRun, build_watcher
from weber.config.run import RunConfig
from weber.planning import limits
from weber.training.assemble import train

MODES: dict[str, dict[str, Any]] = {
    "all": {"gradient_checkpointing": "all"},
    "every second block": {"gradient_checkpointing": 2},
    "lean": {"gradient_checkpointing": "lean"},
    "activations on the host": {"offload_activations": True},
    "one block on the host": {"swap_blocks": 1},
    "all blocks on the host": {"swap_blocks": "all"},
    "all blocks on the disk": {"swap_blocks": "all", "swap_to": "disk"},
    "modulation on the host": {"modulation": "host", "gradient_checkpointing": "all"},
    "everything": {"swap_blocks": 3, "offload_activations": True, "modulation": "host"},
}
PRECISIONS = ("int8", "fp8", "nf4", "int4")


def run_losses(config: RunConfig) -> tuple[list[float], bytes]:
    """Losses of all steps, and the finished adapter."""
    watcher, _ = build_watcher()
    train(config, resume=False, watcher=watcher)
    folder = config.output.folder
    losses = [json.loads(line)["loss"] for line in (folder / "metrics.jsonl").read_text().splitlines()]
    return losses, (folder / "adapter.safetensors").read_bytes()


def read_pictures(config: RunConfig) -> list[bytes]:
    return [path.read_bytes() for path in sorted((config.output.folder / "pictures").rglob("00.png"))]


@pytest.fixture(autouse=True)
def let_the_cpu_be_a_gpu(monkeypatch: pytest.MonkeyPatch) -> None:
    """What moves bytes out of a GPU is refused on a CPU, where it would only copy; here the copies are what is tested."""
    monkeypatch.setattr(limits, "_check_device", lambda config, device: None)


@pytest.fixture(scope="module")
def found() -> dict[str, Any]:
    """Results of runs that several tests compare with, by name."""
    return {}


@pytest.mark.parametrize("mode", MODES)
def test_ways_of_keeping_less_change_no_bit(mode: str, build_run: BuildRun, found: dict[str, Any]) -> None:
    settings = {"train": {"steps": 4}, "sampling": {"prompts": ["a dog"], "steps": 2, "every": 3}}
    if "plain" not in found:
        config = build_run("plain", memory={"gradient_checkpointing": "none"}, **settings)
        found["plain"] = run_losses(config), read_pictures(config)
    config = build_run("mode", memory=MODES[mode], **settings)
    (losses, file), pictures = run_losses(config), read_pictures(config)
    (plain, plain_file), plain_pictures = found["plain"]
    assert losses == plain
    assert file[-1000:] == plain_file[-1000:]
    assert len(plain_pictures) == 3 and pictures == plain_pictures


@pytest.mark.parametrize("precision", PRECISIONS)
def test_a_quantized_base_learns_as_well(precision: str, build_run: BuildRun, found: dict[str, Any]) -> None:
    """The last ten losses of a run, which draws the same pictures and noise, are within a tenth of those in full precision."""
    settings = {"train": {"steps": 20}, "optim": {"lr": 3e-3}, "output": {"save_every": 40}}
    if "full" not in found:
        found["full"] = run_losses(build_run("full", **settings))[0]
    full = found["full"]
    low, _ = run_losses(build_run("low", memory={"quantize": precision}, **settings))
    assert low != full
    assert abs(np.mean(low[-10:]) / np.mean(full[-10:]) - 1) < 0.1
