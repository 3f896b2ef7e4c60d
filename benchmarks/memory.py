"""The estimate of a training step's memory and time against real steps on the CPU.

    python benchmarks/memory.py [--cases CASE ...] [--threads 1]

Models of all families with their published text encoders' shapes, 2 double and 6 single blocks, 256 wide, random weights, LoRA of rank 16
or full training; all 40 cases, or those of these numbers. Each runs in a process of its own: one step to make the optimizer's state, one
that is measured, one that is timed. *Measured*: the tensors that are alive before the step, and on top of them the most that PyTorch's CPU
allocator reports in it through `torch.profiler`; nothing of that is shared with the estimate, which runs the step on the meta device. RSS
is the largest the process had, with Python and the libraries.
"""

from __future__ import annotations

import argparse
import json
from collections.abc import Sequence
from itertools import product
from typing import Any

import machine
import torch

from weber.memory.device import peak_memory_bytes
from weber.training.bench import Case, measure_case

BLOCKS = {"num_layers": 2, "num_single_layers": 6, "num_attention_heads": 4, "attention_head_dim": 64}
AXES = {"flux1": [16, 24, 24], "flux2": [16, 16, 16, 16], "flux3": [16, 16, 16, 16]}
MIB = 2**20


def list_cases() -> list[tuple[str, int, dict[str, Any]]]:
    """Model, pixels, settings."""
    cases: list[tuple[str, int, dict[str, Any]]] = []
    for mode, precision, kind in product(("none", "lean", 2, "all"), ("none", "int8", "nf4"), ("lora", "full")):
        if kind == "lora" or precision == "none":
            adapter = {} if kind == "lora" else {"adapter": {"kind": "full"}}
            cases.append(("flux1-dev", 512, {"memory": {"gradient_checkpointing": mode, "quantize": precision}, **adapter}))
    cases += [("flux1-dev", edge, {"memory": {"gradient_checkpointing": mode}}) for edge in (256, 768) for mode in ("none", "all")]
    cases += [
        (variant, 512, {"memory": {"gradient_checkpointing": mode}})
        for variant in ("flux2-dev", "flux2-klein-base-4b", "flux3-klein-base")
        for mode in ("none", "lean", "all")
    ]
    cases += [
        ("flux1-schnell", 512, {}),
        ("flux1-dev", 512, {"train": {"batch_size": 2}}),
        ("flux1-dev", 512, {"memory": {"dtype": "bf16"}}),
        ("flux1-dev", 512, {"memory": {"modulation": "int8"}}),
        ("flux1-dev", 512, {"memory": {"swap_blocks": 6, "swap_to": "disk"}}),
        ("flux1-dev", 512, {"memory": {"swap_blocks": "all", "swap_to": "disk", "quantize": "int8"}}),
        ("flux1-dev", 512, {"memory": {"gradient_checkpointing": "none", "quantize": "int8", "int8_matmul": True}}),
        ("flux1-dev", 512, {"memory": {"gradient_checkpointing": "none"}, "adapter": {"dropout": 0.1}}),
        ("flux1-dev", 512, {"adapter": {"kind": "full"}, "optim": {"name": "adamw_8bit"}}),
        ("flux1-dev", 512, {"adapter": {"kind": "full"}, "optim": {"name": "adamw_8bit", "fused_backward": True}}),
        ("flux1-dev", 512, {"adapter": {"kind": "full"}, "optim": {"name": "adafactor", "fused_backward": True}}),
    ]
    return cases


def measure(number: int) -> dict[str, Any]:
    """One case, here."""
    variant, edge, settings = list_cases()[number]
    case = Case(variant, edge, settings, {**BLOCKS, "axes_dims_rope": AXES[variant.partition("-")[0]]})
    found = measure_case(case, device="cpu", num_steps=1)
    return {
        "estimate": found.estimated_bytes,
        "measured": found.peak_bytes,
        "estimated_seconds": found.estimate.time.seconds,
        "seconds": found.seconds,
        "rss": peak_memory_bytes(torch.device("cpu")),
    }


def build_options() -> argparse.ArgumentParser:
    parser = machine.build_parser(__doc__)
    numbers = range(len(list_cases()))
    parser.add_argument("--cases", type=int, nargs="+", choices=numbers, default=list(numbers), metavar="CASE", help="numbers of cases")
    parser.add_argument("--alone", action="store_true", help=argparse.SUPPRESS)
    return parser


def main(words: Sequence[str] | None = None) -> None:
    options = build_options().parse_args(words)
    if options.alone:
        torch.set_num_threads(options.threads)
        print(json.dumps(measure(*options.cases)))
        return
    machine.prepare(options)
    print("\n| model | pixels | settings | estimate MiB | measured MiB | off by | estimate s | measured s | RSS MiB |")
    print("|---|---:|---|---:|---:|---:|---:|---:|---:|")
    worst = 0.0
    for number in options.cases:
        variant, edge, settings = list_cases()[number]
        found = machine.run_alone(__file__, ["--alone", "--cases", str(number), "--threads", str(options.threads)])
        off = found["estimate"] / found["measured"] - 1
        worst = max(worst, abs(off))
        sizes = f"{found['estimate'] / MIB:.1f} | {found['measured'] / MIB:.1f} | {off:+.1%}"
        times = f"{found['estimated_seconds']:.2f} | {found['seconds']:.2f} | {found['rss'] / MIB:.0f}"
        print(f"| {variant} | {edge} | {Case(variant, edge, settings).describe()} | {sizes} | {times} |", flush=True)
    print(f"\nworst: {worst:.1%}")


if __name__ == "__main__":
    main()
