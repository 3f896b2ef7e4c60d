"""The machine that numbers were taken on, in one line."""

from __future__ import annotations

import datetime
import platform
from pathlib import Path

import psutil
import torch


def describe_machine() -> str:
    """Date, processor, cores, memory, versions, PyTorch's threads, and how busy the machine was over the last minute."""
    model = platform.processor() or platform.machine()
    information = Path("/proc/cpuinfo")
    if information.exists():
        lines = information.read_text(encoding="utf-8").splitlines()
        model = next((line.partition(":")[2].strip() for line in lines if line.startswith("model name")), model)
    return ", ".join(
        [
            datetime.date.today().isoformat(),
            model,
            f"{psutil.cpu_count()} cores",
            f"{psutil.virtual_memory().total / 2**30:.0f} GiB",
            platform.system(),
            f"Python {platform.python_version()}",
            f"torch {torch.__version__}",
            f"{torch.get_num_threads()} threads",
            f"load average {psutil.getloadavg()[0]:.1f}",
        ]
    )
