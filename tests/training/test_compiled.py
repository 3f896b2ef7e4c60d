"""Runs whose blocks are compiled, as far as the compiler's choice of what is kept: resumed, they are the same bit for bit."""

from __future__ import annotations

import json
import re
from functools import partial
from typing import Any

import pytest
import torch

from tests.runs import BuildRun, build_watcher
from weber.config.run import RunConfig
from weber.memory.compiled import CompiledBlocks
from weber.training import compiling
from weber.training.assemble import train


@pytest.fixture(autouse=True)
def traced(monkeypatch: pytest.MonkeyPatch) -> None:
    """Without the compiler's code, which takes minutes."""
    torch._dynamo.reset()
    monkeypatch.setattr(compiling, "CompiledBlocks", partial(CompiledBlocks, backend="aot_eager_decomp_partition"))
    monkeypatch.setattr(compiling, "_LEAST_SECONDS", 0.01)


def _run(config: RunConfig, *, resume: bool = False) -> tuple[list[float], str, bytes]:
    watcher, said = build_watcher()
    train(config, resume=resume, watcher=watcher)
    losses = [json.loads(line)["loss"] for line in (config.output.folder / "metrics.jsonl").read_text().splitlines()]
    return losses, said.getvalue(), (config.output.folder / "adapter.safetensors").read_bytes()[-1000:]


def test_a_run_is_compiled_and_goes_on_as_it_was(build_run: BuildRun) -> None:
    def build(name: str, steps: int, **memory: Any) -> RunConfig:
        return build_run(
            name,
            memory=memory,
            adapter={"targets": ["single_transformer_blocks.5.attn.to_q"]},
            train={"steps": steps, "batch_size": 1},
            data=[{"resolution": 64, "aspect": "square"}],
        )

    plain, _, _ = _run(build("plain", 3, fused_blocks=False))
    losses, said, weights = _run(build("whole", 3, compile=True))
    assert losses == pytest.approx(plain, rel=1e-4)
    assert re.search(r"Compiled blocks in \d+ s; they keep [\d.]+ MiB for the backward pass, at most [\d.]+ MiB were planned\.", said)
    assert said.count("Compiled") == 1 and "more than was planned" not in said
    _run(build("parts", 2, compile=True))
    resumed, _, weights_again = _run(build("parts", 3, compile=True), resume=True)
    assert (resumed, weights_again) == (losses, weights)
