"""Runs with the forms of LyCORIS in less memory, on quantized models and with dropout."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
import torch
from safetensors.torch import load_file

from tests.kinds.test_lycoris import FORMS, BuildLycoris, build_lycoris, paint, place, read_losses, run_whole
from weber.errors import ConfigError
from weber.planning.plan import build_plan

__all__ = ["build_lycoris", "place"]


MODES: dict[str, dict[str, Any]] = {
    "all": {"gradient_checkpointing": "all"},
    "every second": {"gradient_checkpointing": 2},
    "lean": {"gradient_checkpointing": "lean"},
    "disk": {"swap_blocks": "all", "swap_to": "disk"},
}


@pytest.mark.parametrize("form", ["lokr", "dora", "diag-oft"])
def test_ways_of_keeping_less_change_no_bit(form: str, build_lycoris: BuildLycoris) -> None:
    plain, _ = run_whole(build_lycoris(form, "plain", memory={"gradient_checkpointing": "none"}))
    for mode, memory in MODES.items():
        folder, _ = run_whole(build_lycoris(form, mode, memory=memory))
        assert read_losses(folder) == read_losses(plain), mode
        ours, theirs = load_file(folder / "adapter.safetensors"), load_file(plain / "adapter.safetensors")
        assert all(torch.equal(tensor, theirs[name]) for name, tensor in ours.items()), mode


@pytest.mark.parametrize("key", ["dropout", "rank_dropout", "module_dropout"])
def test_dropout_is_that_of_the_step_however_it_is_run(key: str, build_lycoris: BuildLycoris) -> None:
    table = {**FORMS["lokr"], key: 0.3}
    losses = {}
    for mode in ("none", "all"):
        folder, _ = run_whole(build_lycoris(table, mode, memory={"gradient_checkpointing": mode}))
        losses[mode] = read_losses(folder), (folder / "adapter.safetensors").read_bytes()[-5000:]
    assert losses["none"] == losses["all"]
    with pytest.raises(ConfigError, match="Lean checkpointing"):
        build_plan(build_lycoris(table, memory={"gradient_checkpointing": "lean"}))


@pytest.mark.parametrize("form", ["lokr", "loha", "full", "boft", "glora", "dora"])
def test_on_a_quantized_base_in_bf16(form: str, build_lycoris: BuildLycoris) -> None:
    folder, _ = run_whole(build_lycoris(form, memory={"quantize": "int8", "dtype": "bf16"}))
    tensors = load_file(folder / "adapter.safetensors")
    assert all(tensor.dtype == torch.float32 for tensor in tensors.values())
    assert len(read_losses(folder)) == 2 and not np.array_equal(paint(folder), paint(folder, strength=0.0))
