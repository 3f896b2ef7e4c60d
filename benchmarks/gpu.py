"""Training steps on this machine's GPU against diffusers + PEFT: time, share of the datasheet, memory. First the tests that need a GPU.

    python benchmarks/gpu.py [--models FLUX.1-dev klein-4B klein-9B FLUX.2-dev] [--pixels 512 1024] [--modes none lean all] [--steps 5] \
        [--minutes 8] [--device cuda] [--blocks BLOCKS] [--heads HEADS] [--tests TESTS ...] [--threads 1]

Networks have their published size and drawn weights, the same for both sides; LoRA of rank 16 on every linear layer of the blocks, batch 1,
512 text tokens. weber: fp32 masters that compute in bf16, its own blocks, an update that nobody waits for. The other side is what the
scripts of diffusers do with accelerate: the library's forward under autocast to bf16, adapters in fp32, `clip_grad_norm_`,
`torch.optim.AdamW`, `loss.item()`; it has no lean mode. Both in nf4: weber's packed layers, and `bnb.nn.Linear4bit`. The sides take turns;
times are medians of so many steps after one that warms up. MFU is the FLOPs of a step in which nothing is computed twice, over what the
datasheet says of dense bf16. Peaks are what PyTorch held, without the other side's weights. What does not fit into the minutes is named
and left out.
"""

from __future__ import annotations

import argparse
import gc
import subprocess
import sys
import time
import warnings
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from statistics import median
from typing import Any

import bitsandbytes
import machine
import torch
from peft.tuners.lora import Linear
from saved import MODELS, RANK, Model, count_flops, run_library, run_ours
from torch import Tensor, nn

from weber.adapters.lora import build_lora
from weber.adapters.lowrank import LowRank
from weber.adapters.target import list_targets
from weber.config.adapter import AdapterConfig
from weber.config.optim import OptimConfig
from weber.memory.checkpointing import build_checkpointing
from weber.memory.formats import FORMATS
from weber.memory.joined import join_layers
from weber.memory.packed import build_packed
from weber.memory.rates import MATMUL, build_rates
from weber.optim.skip import step_where
from weber.optim.table import build_optimizer
from weber.training.outcome import Health

PRECISIONS = {"FLUX.1-dev": ("bf16", "nf4"), "FLUX.2-dev": ("nf4",)}
MODES = ("none", "lean", "all")
TESTS = ("tests/kernels", "tests/blocks", "tests/memory/test_packed.py", "tests/memory/test_formats.py", "tests/training/test_gpu.py")
NUM_WARM_UP, CLIP_NORM, LR = 1, 1.0, 1e-4
ROOT = Path(__file__).parents[1]


def build_options() -> argparse.ArgumentParser:
    parser = machine.build_parser(__doc__)
    default = ["FLUX.1-dev", "klein-4B", "klein-9B", "FLUX.2-dev"]
    parser.add_argument("--models", nargs="+", choices=default, default=default, help="published sizes")
    parser.add_argument("--pixels", nargs="+", type=machine.read_count, default=[512, 1024], help="edges of the pictures")
    parser.add_argument("--modes", nargs="+", choices=MODES, default=list(MODES), help="gradient checkpointing")
    parser.add_argument("--steps", type=machine.read_count, default=5, help="measured steps of each side and case")
    parser.add_argument("--minutes", type=float, default=8.0, help="after which no case begins")
    parser.add_argument("--device", default="cuda", help="where it runs; a CPU shows only that it runs")
    parser.add_argument("--blocks", type=machine.read_count, help="blocks of each kind, for all models")
    parser.add_argument("--heads", type=machine.read_count, help="heads of 128 numbers, for all models")
    parser.add_argument("--tests", nargs="*", default=list(TESTS), help="tests that run first; none if nothing is named")
    return parser


def main(words: Sequence[str] | None = None) -> None:
    parser = build_options()
    options = parser.parse_args(words)
    if options.device == "cuda" and not torch.cuda.is_available():
        parser.error("argument --device: PyTorch finds no CUDA GPU here; `--device cpu --blocks 1 --heads 1` shows what would run")
    end = time.monotonic() + 60 * options.minutes
    machine.prepare(options)
    warnings.filterwarnings("ignore", "Mismatch dtype")
    if options.tests:
        print(run_tests(options.tests), flush=True)
    device = torch.device(options.device)
    print(f"on {torch.cuda.get_device_name(device) if device.type == 'cuda' else device.type}\n")
    print("| model | pixels | weights | checkpointing | weber ms | MFU % | GiB | diffusers + PEFT ms | GiB | times as fast |")
    print("|---|---:|---|---|" + 6 * "---:|")
    changes = {"num_layers": options.blocks, "num_single_layers": options.blocks, "num_attention_heads": options.heads}
    changes = {name: value for name, value in changes.items() if value is not None}
    for name in options.models:
        model = MODELS[name] if options.heads is None else replace(MODELS[name], width=128 * options.heads)
        for precision in PRECISIONS.get(name, ("bf16",)):
            sides = build_sides(model, device, changes=changes, precision=precision)
            for edge in options.pixels:
                for mode in options.modes:
                    start = f"| {name} | {edge} | {precision} | {mode} |"
                    found = "left out, no time |" if time.monotonic() > end else measure(sides, edge, mode, num_steps=options.steps)
                    print(f"{start} {found}", flush=True)
            del sides
            gc.collect()
            torch.cuda.empty_cache()


def run_tests(tests: Sequence[str]) -> str:
    """pytest's last line, and what failed."""
    done = subprocess.run([sys.executable, "-m", "pytest", "-q", *tests], capture_output=True, text=True, cwd=ROOT)
    lines = done.stdout.strip().splitlines() or [done.stderr.strip()[-200:]]
    return "\n".join(["tests: " + lines[-1], *(line for line in lines if line.startswith(("FAILED", "ERROR")))])


@dataclass
class Sides:
    """One network with adapters, as ours or as theirs. `packed`: where a packed layer stands, and what stands there on each side."""

    model: Model
    transformer: Any
    device: torch.device
    blocks: list[nn.Module]
    parameters: list[nn.Parameter]
    packed: dict[tuple[nn.Module, str], tuple[nn.Module, nn.Module]]

    def switch(self, side: int) -> None:
        """0: ours, 1: theirs."""
        for module in self.transformer.modules():
            if isinstance(module, Linear):
                module.__class__ = (LowRank, Linear)[side]
        for (parent, name), pair in self.packed.items():
            setattr(parent, name, pair[side])

    def count_own_bytes(self, side: int) -> int:
        """Of weights that this side alone has."""
        return sum(one.nbytes for pair in self.packed.values() for one in (*pair[side].parameters(), *pair[side].buffers()))


def build_sides(model: Model, device: torch.device, *, changes: dict[str, int], precision: str) -> Sides:
    """The network with drawn weights, in bf16 or packed twice."""
    torch.manual_seed(0)
    before = torch.get_default_dtype()
    torch.set_default_dtype(torch.bfloat16)
    try:
        with device:
            transformer: Any = model.build(**changes)
    finally:
        torch.set_default_dtype(before)
    transformer = nn.Module.to(transformer, torch.bfloat16).requires_grad_(False).train()
    blocks = [block for name in model.block_names for block in transformer.get_submodule(name)]
    if precision == "bf16":
        join_layers(blocks, model.keys.JOINED_LAYERS)
    modules = list_targets(transformer, "blocks", sets=model.keys.ADAPTER_TARGETS)
    parameters = [one for _, one in build_lora(transformer, AdapterConfig(rank=RANK), modules=modules, seed=0)]
    packed = {}
    if precision == "nf4":
        parents = [one for block in blocks for name, one in block.named_modules() if "lora_" not in name]
        places = [(parent, name) for parent in parents for name, one in parent.named_children() if type(one) is nn.Linear]
        for parent, name in places:
            packed[parent, name] = pack_twice(getattr(parent, name))
            setattr(parent, name, packed[parent, name][0])
    return Sides(model, transformer, device, blocks, parameters, packed)


def pack_twice(layer: nn.Linear) -> tuple[nn.Module, nn.Module]:
    """A layer in nf4: weber's, and that of bitsandbytes."""
    ours = build_packed(layer.weight, layer.bias, format=FORMATS["nf4"])
    theirs = bitsandbytes.nn.Linear4bit(
        layer.in_features, layer.out_features, layer.bias is not None, compute_dtype=torch.bfloat16, quant_type="nf4", device="meta"
    )
    theirs.weight = bitsandbytes.nn.Params4bit(layer.weight.cpu(), requires_grad=False, quant_type="nf4")
    theirs.bias = None if layer.bias is None else nn.Parameter(layer.bias.detach().clone(), requires_grad=False)
    return ours, theirs.to(layer.weight.device)


def measure(sides: Sides, edge: int, mode: Any, *, num_steps: int) -> str:
    """The rest of a line of the table; a side that does not fit into memory says so."""
    steps = [build_ours(sides, edge, mode), None if mode == "lean" else build_theirs(sides, edge, mode)]
    seconds: list[list[float]] = [[], []]
    peaks, troubles = [0, 0], ["", "" if steps[1] else "-"]
    for number in range(NUM_WARM_UP + num_steps):
        for side in (0, 1) if number % 2 else (1, 0):
            run = steps[side]
            if run is None or troubles[side]:
                continue
            sides.switch(side)
            if sides.device.type == "cuda":
                torch.cuda.reset_peak_memory_stats(sides.device)
            try:
                spent = time_step(run, sides.device)
            except torch.OutOfMemoryError:
                troubles[side] = "out of memory"
                continue
            if sides.device.type == "cuda":
                peaks[side] = max(peaks[side], torch.cuda.max_memory_allocated(sides.device) - sides.count_own_bytes(1 - side))
            if number >= NUM_WARM_UP:
                seconds[side].append(spent)
    cells = [trouble or f"{1000 * median(found):.1f}" for trouble, found in zip(troubles, seconds, strict=True)]
    memory = [f"{peak / 2**30:.2f}" if peak and not trouble else "" for trouble, peak in zip(troubles, peaks, strict=True)]
    ratio = f"{median(seconds[1]) / median(seconds[0]):.2f}" if all(seconds) else ""
    used = _count_share(sides, edge, median(seconds[0])) if seconds[0] else ""
    return f"{cells[0]} | {used} | {memory[0]} | {cells[1]} | {memory[1]} | {ratio} |"


def build_ours(sides: Sides, edge: int, mode: Any) -> Callable[[], None]:
    """A step of weber."""
    predictor = sides.model.predictor(sides.transformer)
    predictor.run = build_checkpointing(mode, blocks=sides.blocks, lean_layers=sides.model.keys.LEAN_LAYERS)
    optimizer, health = build_optimizer(sides.parameters, OptimConfig(lr=LR), seed=0), Health(sides.device)

    def step() -> None:
        loss = run_ours(predictor, sides.model, edge, device=sides.device.type).float().square().mean()
        loss.backward()  # type: ignore[no-untyped-call]
        gradients = _list_gradients(sides)
        norm = nn.utils.get_total_norm(gradients)
        health.note(loss.detach())
        health.note(norm)
        torch._foreach_mul_(gradients, (CLIP_NORM / norm).clamp(max=1))
        step_where(optimizer, health.is_finite)
        optimizer.zero_grad()

    return step


def build_theirs(sides: Sides, edge: int, mode: Any) -> Callable[[], None]:
    """A step of the plain loop."""
    transformer, optimizer = sides.transformer, torch.optim.AdamW(sides.parameters, lr=LR)

    def step() -> None:
        transformer.enable_gradient_checkpointing() if mode == "all" else transformer.disable_gradient_checkpointing()
        with torch.autocast(sides.device.type, torch.bfloat16):
            velocity = run_library(transformer, sides.model, (edge // 16) ** 2, device=sides.device.type)
        loss = velocity.float().square().mean()
        loss.backward()  # type: ignore[no-untyped-call]
        nn.utils.clip_grad_norm_(sides.parameters, CLIP_NORM)
        optimizer.step()
        optimizer.zero_grad()
        loss.detach().item()

    return step


def time_step(run: Callable[[], None], device: torch.device) -> float:
    """Seconds until the device has done it."""
    start = time.perf_counter()
    run()
    if device.type == "cuda":
        torch.cuda.synchronize()
    return time.perf_counter() - start


def _list_gradients(sides: Sides) -> list[Tensor]:
    return [one.grad for one in sides.parameters if one.grad is not None]


def _count_share(sides: Sides, edge: int, seconds: float) -> str:
    rates = build_rates(torch.cuda.get_device_name(sides.device)) if sides.device.type == "cuda" else None
    if rates is None:
        return ""
    flops = count_flops(sides.model, sides.transformer, "none", tokens=(edge // 16) ** 2, rows={})
    return f"{100 * flops / seconds / (rates.flops['bfloat16'] / MATMUL):.1f}"


if __name__ == "__main__":
    main()
