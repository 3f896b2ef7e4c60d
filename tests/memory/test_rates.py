from __future__ import annotations

from collections import Counter

import pytest
import torch

from weber.memory.rates import KERNEL_SECONDS, MEMORY, PRODUCTS, STARTS, Rates, build_rates, load_rates
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
    products = Counter({("bfloat16", 150, 1): 2, ("float32", 10, 1): 1, (ATTENTION, 100, 1): 1})
    work = Work(products, moved_bytes=40, num_kernels=3)
    assert RATES.count_parts(work) == {PRODUCTS: 3 + 1, ATTENTION: 2, MEMORY: 2, STARTS: 0}
    assert RATES.count_seconds(work) == pytest.approx(3 + 1 + 2 + 2)
    assert RATES.count_seconds(Work(Counter({("int8", 20, 0): 1}))) == pytest.approx(2), "as fast as fp32 where nothing else is known"


def test_a_skinny_product_takes_as_long_as_reading_and_writing_its_tensors() -> None:
    """At one intensity and another the same numbers of FLOPs and bytes differ: the larger is taken for each product, not for all."""
    wide, skinny = ("bfloat16", 200, 10), ("bfloat16", 10, 60)
    work = Work(Counter({wide: 1, skinny: 4}), moved_bytes=20, num_kernels=6)
    assert RATES.count_parts(work) == pytest.approx({PRODUCTS: 2, ATTENTION: 0, MEMORY: 1 + 4 * 3, STARTS: 0})
    assert RATES.count_skinny_bytes(work) == 4 * 60


def test_what_limits_is_asked_of_each_device_anew() -> None:
    """The product of a LoRA's A: 16 FLOPs for each byte, which is little for a data center's GPU and enough for a processor."""
    rows, width, rank = 4608, 3072, 16
    num_bytes = 2 * (rows * width + rank * width + rows * rank)
    work = Work(Counter({("bfloat16", 2 * rows * width * rank, num_bytes): 1}), num_kernels=1)
    h100 = build_rates("NVIDIA H100 80GB HBM3")
    assert h100 is not None and h100.count_skinny_bytes(work) == num_bytes
    assert h100.count_parts(work)[MEMORY] == pytest.approx(num_bytes / h100.bandwidth) and h100.count_parts(work)[PRODUCTS] == 0
    processor = Rates("cpu", {"bfloat16": 1e11, "float32": 1e11}, attention=5e10, bandwidth=2e10, link=2e10)
    assert processor.count_skinny_bytes(work) == 0 and processor.count_parts(work)[MEMORY] == 0


def test_many_small_operations_take_as_long_as_starting_them() -> None:
    work = Work(Counter({("bfloat16", 100, 1): 1}), 1, num_kernels=10_000_000)
    parts = RATES.count_parts(work)
    assert sum(parts.values()) == RATES.count_seconds(work) == pytest.approx(10_000_000 * KERNEL_SECONDS)
    assert parts[PRODUCTS] == 1 and parts[STARTS] == pytest.approx(10_000_000 * KERNEL_SECONDS - 1 - 1 / 20), "what is waited for"
