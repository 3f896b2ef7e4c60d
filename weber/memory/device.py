"""Which device and which precision: what `auto` means here, and what this machine cannot do."""

from __future__ import annotations

import sys

import torch

from weber.config.memory import MemoryConfig
from weber.errors import ConfigError

if sys.platform != "win32":
    import resource


def build_device(config: MemoryConfig) -> torch.device:
    """The device that `memory.device` names. Raises ConfigError where this machine has none."""
    if config.device == "auto":
        if torch.cuda.is_available():
            return torch.device("cuda", 0)
        return torch.device("mps" if torch.backends.mps.is_available() else "cpu")
    available = ["cpu"] + [f"cuda:{index}" for index in range(torch.cuda.device_count())]
    available += ["cuda"] if torch.cuda.is_available() else []
    available += ["mps"] if torch.backends.mps.is_available() else []
    if config.device not in available:
        raise ConfigError(
            "This machine has no such device.",
            got=f"memory.device = {config.device!r}",
            expected=", ".join(["auto", *available]),
            fix='set memory.device = "auto"; if there is a GPU, install the PyTorch build for it (pytorch.org)',
        )
    return torch.device(config.device)


def build_dtype(config: MemoryConfig, device: torch.device) -> torch.dtype:
    """Precision of the frozen model: `auto` is bf16 on GPUs that compute in it, fp32 elsewhere."""
    if config.dtype == "auto":
        has_bf16 = device.type == "mps" or (device.type == "cuda" and torch.cuda.is_bf16_supported(including_emulation=False))
        return torch.bfloat16 if has_bf16 else torch.float32
    return torch.bfloat16 if config.dtype == "bf16" else torch.float32


def peak_memory_bytes(device: torch.device) -> int | None:
    """Most bytes that PyTorch has held on a GPU; elsewhere, most bytes that the process has held in memory; None on Windows."""
    if device.type == "cuda":
        return torch.cuda.max_memory_allocated(device)
    if sys.platform == "win32":
        return None
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    return peak if sys.platform == "darwin" else 1024 * peak
