"""Which device and precision `auto` means on this machine, and what is said about a device that is not there."""

from __future__ import annotations

import os

import pytest
import torch

from weber.config.memory import MemoryConfig
from weber.errors import ConfigError
from weber.memory.device import build_device, build_dtype, peak_memory_bytes

CPU = torch.device("cpu")
HAS_GPU = torch.cuda.is_available() or torch.backends.mps.is_available()


@pytest.mark.skipif(HAS_GPU, reason="this machine has a GPU")
def test_auto_without_a_gpu() -> None:
    assert build_device(MemoryConfig()) == CPU


@pytest.mark.skipif(not torch.cuda.is_available(), reason="this machine has no CUDA GPU")
def test_auto_with_a_gpu() -> None:
    device = build_device(MemoryConfig())
    assert device == torch.device("cuda", 0)
    assert build_dtype(MemoryConfig(), device) == torch.bfloat16
    assert isinstance(peak_memory_bytes(device), int)


def test_the_cpu_is_always_there() -> None:
    assert build_device(MemoryConfig(device="cpu")) == CPU


@pytest.mark.parametrize("name", ["cuda:77", "gpu", "cpu:1", "tpu"])
def test_a_device_that_is_not_there(name: str) -> None:
    with pytest.raises(ConfigError) as caught:
        build_device(MemoryConfig(device=name))
    message = str(caught.value)
    assert f"got: memory.device = {name!r}" in message
    assert "expected: auto, cpu" in message
    assert 'fix: set memory.device = "auto"' in message


@pytest.mark.parametrize(("name", "dtype"), [("auto", torch.float32), ("fp32", torch.float32), ("bf16", torch.bfloat16)])
def test_precision_on_the_cpu(name: str, dtype: torch.dtype) -> None:
    assert build_dtype(MemoryConfig(dtype=name), CPU) == dtype


@pytest.mark.parametrize(("has_bf16", "dtype"), [(True, torch.bfloat16), (False, torch.float32)])
def test_auto_precision_asks_the_gpu_for_real_bf16(has_bf16: bool, dtype: torch.dtype, monkeypatch: pytest.MonkeyPatch) -> None:
    def answer(*, including_emulation: bool) -> bool:
        assert not including_emulation
        return has_bf16

    monkeypatch.setattr(torch.cuda, "is_bf16_supported", answer)
    assert build_dtype(MemoryConfig(), torch.device("cuda")) == dtype
    assert build_dtype(MemoryConfig(dtype="bf16"), torch.device("cuda")) == torch.bfloat16


@pytest.mark.skipif(os.name != "posix", reason="Windows has no such count in the standard library")
def test_peak_memory_on_the_cpu_is_that_of_the_process() -> None:
    before = peak_memory_bytes(CPU)
    assert before is not None and 2**26 < before < 2**40
    block = torch.ones(before // 4 + 2**24)  # 64 MiB more than the peak so far
    after = peak_memory_bytes(CPU)
    assert after is not None and after >= before + 2**26
    del block
