from __future__ import annotations

from collections import Counter

import pytest
import torch

from weber.memory.rates import KERNEL_SECONDS, Rates, build_rates, load_rates
from weber.memory.simulate import ATTENTION, Work

RATES = Rates("a device", {"bfloat16": 100.0, "float32": 10.0}, attention=50.0, bandwidth=20.0, link=1.0)


@pytest.mark.parametrize(
    ("name", "bf16"),
    [
        ("NVIDIA GeForce RTX 4070", 58.3),
        ("NVIDIA GeForce RTX 4070 Ti", 80.2),
        ("NVIDIA GeForce RTX 4070 Ti SUPER", 88.2),
        ("NVIDIA GeForce RTX 3090", 71),
        ("NVIDIA GeForce RTX 5060 Ti", 47.4),
        ("NVIDIA H100 80GB HBM3", 989),
        ("NVIDIA H100 PCIe", 756),
        ("NVIDIA A100-SXM4-80GB", 312),
        ("NVIDIA A10G", 70),
        ("NVIDIA A10", 125),
        ("NVIDIA L40S", 362),
        ("NVIDIA L4", 121),
        ("NVIDIA RTX 6000 Ada Generation", 364),
        ("NVIDIA RTX A6000", 154.8),
        ("NVIDIA H200", 989),
        ("Tesla T4", 8.1),
    ],
)
def test_a_gpu_is_known_by_the_name_that_torch_gives_it(name: str, bf16: float) -> None:
    rates = build_rates(name)
    assert rates is not None and rates.name == name and not rates.is_measured
    peak = bf16 * 1e12
    assert 0.4 * peak < rates.flops["bfloat16"] < 0.9 * peak and rates.attention < peak
    assert rates.flops["float32"] <= rates.flops["bfloat16"] <= rates.flops["int8"]


def test_a_gpu_without_narrow_units_computes_in_wider_ones() -> None:
    rates = build_rates("NVIDIA GeForce RTX 3090")
    assert rates is not None and rates.flops["float8_e4m3fn"] == rates.flops["bfloat16"]


def test_an_unknown_device_is_measured() -> None:
    assert build_rates("Voodoo 2") is None
    rates = load_rates(torch.device("cpu"), torch.float32)
    assert rates.is_measured and rates.name == "cpu"
    assert rates.flops["float32"] > 1e8 and rates.bandwidth > 1e8


def test_seconds_are_those_of_one_operation_after_the_other() -> None:
    work = Work(Counter({"bfloat16": 300, "float32": 10, ATTENTION: 100}), moved_bytes=40, num_kernels=3)
    assert RATES.count_seconds(work) == pytest.approx(3 + 1 + 2 + 2)
    assert RATES.count_seconds(Work(Counter({"int8": 20}))) == pytest.approx(2)


def test_many_small_operations_take_as_long_as_starting_them() -> None:
    assert RATES.count_seconds(Work(Counter(), 1, num_kernels=10_000_000)) == pytest.approx(10_000_000 * KERNEL_SECONDS)
