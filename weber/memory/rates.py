"""How fast devices are: by the datasheets of known GPUs, or by a short measurement of anything else; and how much memory there is."""

from __future__ import annotations

import os
import time
from collections.abc import Callable
from dataclasses import dataclass
from functools import cache

import torch

from weber.memory.cards import find_driver_card
from weber.memory.simulate import ATTENTION, Work

GIB = 2**30
MATMUL, ATTENTION_SHARE, BANDWIDTH = 0.65, 0.4, 0.75
"""What is reached of a datasheet: matrix products and memory as measured on H100 and H200, attention with FlashAttention 2
(performance.md 1, "Attainable, not peak")."""

PRODUCTS, MEMORY, STARTS = "products", "memory traffic", "starting kernels"
"""What takes time, beside attention: products of matrices; reading and writing, where that takes longer than computing; and starting
kernels from Python, as far as the device waits for it."""

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
        """Time of some work."""
        return sum(self.count_parts(work).values())

    def count_parts(self, work: Work) -> dict[str, float]:
        """Seconds by what takes them, one operation after the other. A product takes as long as its FLOPs or as its bytes, whichever is
        more; and all together take at least as long as it takes to start them."""
        parts = {PRODUCTS: 0.0, ATTENTION: 0.0, MEMORY: work.moved_bytes / self.bandwidth}
        for (kind, flops, num_bytes), count in work.products.items():
            computing, moving = flops / self._find_speed(kind), num_bytes / self.bandwidth
            part = MEMORY if moving > computing else ATTENTION if kind == ATTENTION else PRODUCTS
            parts[part] += count * max(computing, moving)
        return {**parts, STARTS: max(0.0, work.num_kernels * KERNEL_SECONDS - sum(parts.values()))}

    def count_skinny_bytes(self, work: Work) -> int:
        """What is read and written by products that memory limits."""
        return sum(
            count * num_bytes
            for (kind, flops, num_bytes), count in work.products.items()
            if num_bytes / self.bandwidth > flops / self._find_speed(kind)
        )

    def _find_speed(self, kind: str) -> float:
        return self.attention if kind == ATTENTION else self.flops.get(kind, self.flops["float32"])


def build_rates(name: str) -> Rates | None:
    """What the datasheet says of a GPU by its name, times what is reached of it; None for one that is not known."""
    card = find_driver_card(name)
    if card is None:
        return None
    bf16 = card.bf16
    flops = {"bfloat16": bf16, "float16": bf16, "float32": card.fp32, "float8_e4m3fn": card.fp8 or bf16, "int8": card.int8 or bf16}
    return Rates(
        name,
        {kind: MATMUL * _TERA * number for kind, number in flops.items()},
        ATTENTION_SHARE * _TERA * bf16,
        BANDWIDTH * _GIGA * card.bandwidth,
        _GIGA * card.link,
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
