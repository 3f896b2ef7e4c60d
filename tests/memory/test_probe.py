"""A short trial of both precisions on a processor."""

from __future__ import annotations

import math

import pytest
import torch

from weber.memory.probe import BlockSizes, has_bf16_units, measure_gain


def test_small_models_are_not_worth_a_trial() -> None:
    assert not BlockSizes(64, 256, 4).is_worth_trying, "pocket at its own size"
    assert BlockSizes(1024, 3072, 24).is_worth_trying
    assert BlockSizes(4096, 256, 4).is_worth_trying


def test_both_are_timed_and_progress_is_told() -> None:
    said: list[tuple[str, int, int]] = []
    gain = measure_gain(BlockSizes(32, 64, 2), lambda what, done, total, note="": said.append((what, done, total)))
    assert math.isfinite(gain) and gain > 0
    assert said == [("trying precisions", number, 4) for number in range(1, 5)]


@pytest.mark.skipif(not has_bf16_units(), reason="needs a processor with units for bf16")
def test_the_units_are_those_that_pytorch_names() -> None:
    assert torch.backends.cpu.get_cpu_capability().startswith("AVX512")
