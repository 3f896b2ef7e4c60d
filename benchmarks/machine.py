"""How every benchmark begins: its options, PyTorch's threads, and the machine in one line; and how a part runs in a process of its own.

It is imported before other libraries, whose own log lines it keeps off the terminal.
"""

from __future__ import annotations

import argparse
import datetime
import json
import logging
import platform
import subprocess
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import psutil
import torch

import weber  # noqa: F401  (silences what it uses)

logging.getLogger("transformers.utils.import_utils").setLevel(logging.ERROR)  # notes what diffusers' pipelines lack


def build_parser(description: str | None) -> argparse.ArgumentParser:
    """Options, of which all benchmarks have `--threads`. The description names each with its default."""
    parser = argparse.ArgumentParser(description=description, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--threads", type=read_count, default=1, help="threads of PyTorch; 1 is least disturbed by other programs")
    return parser


def read_count(text: str, at_least: int = 1) -> int:
    """An option that says how many. Raises argparse.ArgumentTypeError for less."""
    if not text.isdecimal() or int(text) < at_least:
        raise argparse.ArgumentTypeError(f"expected {at_least} or more, got {text}")
    return int(text)


def prepare(options: argparse.Namespace) -> None:
    """Set the threads and print the machine."""
    torch.set_num_threads(options.threads)
    print(describe_machine(), flush=True)


def run_alone(file: str, words: Sequence[str]) -> dict[str, Any]:
    """Run a benchmark's file with these options in a process of its own; what its last line says in JSON. Raises RuntimeError."""
    done = subprocess.run([sys.executable, file, *words], capture_output=True, text=True)
    if done.returncode != 0:
        raise RuntimeError(f"{file} {' '.join(words)} ended with {done.returncode}:\n{done.stderr}")
    found: dict[str, Any] = json.loads(done.stdout.splitlines()[-1])
    return found


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
