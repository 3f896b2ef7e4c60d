"""How fast devices are: datasheets of known GPUs, and a short measurement of anything else; and how much memory there is."""

from __future__ import annotations

import os
import time
from collections.abc import Callable
from dataclasses import dataclass
from functools import cache

import torch

from weber.memory.simulate import ATTENTION, Work

GIB = 2**30
MATMUL, ATTENTION_SHARE, BANDWIDTH = 0.65, 0.4, 0.75
"""What is reached of a datasheet: matrix products and memory as measured on H100 and H200, attention with FlashAttention 2
(performance.md 1, "Attainable, not peak")."""

KERNEL_SECONDS = 6e-6
"""What it takes to start one operation from Python; with small pictures on large GPUs more than the operation itself."""

HOST_BYTES_PER_SECOND = 2e10
"""At which the processor reads weights that it computes with, and copies between places of its own memory."""

_TERA, _GIGA = 1e12, 1e9
_EDGE = 1024
_MEASURED_SECONDS = 0.1


@dataclass(frozen=True)
class Rates:
    """FLOP/s by the dtype of the factors, bytes per second of the device's own memory and from the host; all as they are reached."""

    name: str
    flops: dict[str, float]
    attention: float
    bandwidth: float
    link: float
    is_measured: bool = False

    def count_seconds(self, work: Work) -> float:
        """Time of some work: one operation after the other, or as long as it takes to start them all."""
        seconds = work.moved_bytes / self.bandwidth
        for kind, flops in work.flops.items():
            seconds += flops / (self.attention if kind == ATTENTION else self.flops.get(kind, self.flops["float32"]))
        return max(seconds, work.num_kernels * KERNEL_SECONDS)


# TFLOP/s dense with fp32 accumulation (bf16, fp32 without tensor cores, fp8, int8), GB/s of memory, GB/s from the host as measured.
# 0: the GPU has no such units, and computes in the next wider ones. Order matters where one name is part of another.
_GPUS: dict[str, tuple[float, float, float, float, float, float]] = {
    "B200": (2250, 80, 4500, 4500, 8000, 50),
    "GH200": (989, 67, 1979, 1979, 4000, 300),
    "H200": (989, 67, 1979, 1979, 4800, 50),
    "H100 PCIe": (756, 51, 1513, 1513, 2000, 50),
    "H100 NVL": (835, 60, 1671, 1671, 3938, 50),
    "H100": (989, 67, 1979, 1979, 3350, 50),
    "H20": (148, 44, 296, 296, 4000, 50),
    "A100": (312, 19.5, 0, 624, 1555, 24),
    "A40": (149.7, 37.4, 0, 299, 696, 24),
    "A30": (165, 10.3, 0, 330, 933, 24),
    "A10G": (70, 35, 0, 140, 600, 24),
    "A10": (125, 31.2, 0, 250, 600, 24),
    "L40S": (362, 91.6, 733, 733, 864, 24),
    "L40": (181, 90.5, 362, 362, 864, 24),
    "L4": (121, 30.3, 242, 242, 300, 24),
    "RTX PRO 6000": (503, 125, 1007, 1007, 1792, 50),
    "RTX 6000 Ada": (364, 91, 728, 728, 960, 24),
    "RTX A6000": (154.8, 38.7, 0, 309, 768, 24),
    "RTX A5000": (111, 27.8, 0, 222, 768, 24),
    "RTX A4000": (76.7, 19.2, 0, 153, 448, 24),
    "RTX 5090": (209.5, 104.8, 419, 838, 1792, 50),
    "RTX 5080": (112.6, 56.3, 225, 450, 960, 50),
    "RTX 5070 Ti": (88, 44, 176, 352, 896, 50),
    "RTX 5070": (61.7, 30.9, 123, 247, 672, 50),
    "RTX 5060 Ti": (47.4, 23.7, 95, 190, 448, 25),
    "RTX 5060": (38.4, 19.2, 77, 154, 448, 25),
    "RTX 4090": (165.2, 82.6, 330, 660, 1008, 24),
    "RTX 4080 SUPER": (104.4, 52.2, 209, 418, 736, 24),
    "RTX 4080": (97.5, 48.7, 195, 390, 717, 24),
    "RTX 4070 Ti SUPER": (88.2, 44.1, 176, 353, 672, 24),
    "RTX 4070 Ti": (80.2, 40.1, 160, 321, 504, 24),
    "RTX 4070 SUPER": (71, 35.5, 142, 284, 504, 24),
    "RTX 4070": (58.3, 29.1, 117, 233, 504, 24),
    "RTX 4060 Ti": (44.1, 22.1, 88, 177, 288, 12),
    "RTX 4060": (30.2, 15.1, 60, 121, 272, 12),
    "RTX 3090 Ti": (80, 40, 0, 320, 1008, 24),
    "RTX 3090": (71, 35.6, 0, 284, 936, 24),
    "RTX 3080 Ti": (68, 34.1, 0, 273, 912, 24),
    "RTX 3080": (59.5, 29.8, 0, 238, 760, 24),
    "RTX 3070": (40.6, 20.3, 0, 163, 448, 24),
    "RTX 3060": (25.5, 12.7, 0, 102, 360, 24),
    "Tesla T4": (8.1, 8.1, 0, 130, 320, 12),
    "V100": (15.7, 15.7, 0, 0, 900, 12),
}


def build_rates(name: str) -> Rates | None:
    """What the datasheet says of a GPU by its name, times what is reached of it; None for one that is not known."""
    row = next((row for known, row in _GPUS.items() if known.casefold() in name.casefold()), None)
    if row is None:
        return None
    bf16, fp32, fp8, int8, bandwidth, link = row
    flops = {"bfloat16": bf16, "float16": bf16, "float32": fp32, "float8_e4m3fn": fp8 or bf16, "int8": int8 or bf16}
    return Rates(
        name,
        {kind: MATMUL * _TERA * number for kind, number in flops.items()},
        ATTENTION_SHARE * _TERA * bf16,
        BANDWIDTH * _GIGA * bandwidth,
        _GIGA * link,
    )


@cache
def load_rates(device: torch.device, dtype: torch.dtype) -> Rates:
    """Rates of a device of this machine: from the table where it is known, else measured in a fifth of a second."""
    name = torch.cuda.get_device_name(device) if device.type == "cuda" else device.type
    return build_rates(name) or _measure(name, device, dtype)


def read_device_bytes(device: torch.device) -> int:
    """Bytes of a GPU that this process may have, its context included: all but what others hold."""
    free, _ = torch.cuda.mem_get_info(device)
    return free + torch.cuda.memory_reserved(device)


def read_host_bytes() -> int | None:
    """Bytes of memory that this machine has; None where it does not say."""
    try:
        return os.sysconf("SC_PHYS_PAGES") * os.sysconf("SC_PAGE_SIZE")
    except (AttributeError, ValueError, OSError):  # Windows has no sysconf
        return None


def _measure(name: str, device: torch.device, dtype: torch.dtype) -> Rates:
    one = torch.ones(_EDGE, _EDGE, device=device, dtype=dtype)
    flops = 2 * _EDGE**3 / _time(lambda: one @ one, device)
    bandwidth = 2 * one.nbytes / _time(one.clone, device)
    return Rates(name, {"float32": flops, "bfloat16": flops}, flops / 2, bandwidth, HOST_BYTES_PER_SECOND, is_measured=True)


def _time(run: Callable[[], torch.Tensor], device: torch.device) -> float:
    """Seconds of one run: the fastest of as many as fit."""
    best, end = float("inf"), time.perf_counter() + _MEASURED_SECONDS
    while True:
        start = time.perf_counter()
        _wait(run(), device)
        now = time.perf_counter()
        best = min(best, now - start)
        if now > end:
            return best


def _wait(result: torch.Tensor, device: torch.device) -> None:
    if device.type != "cpu":
        result[0, 0].item()
