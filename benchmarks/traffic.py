"""What a step moves, starts and keeps on networks of full size, and how long that takes on a GPU, without weights and without a GPU.

    python benchmarks/traffic.py [--models FLUX.1-dev klein-4B klein-9B FLUX.2-dev FLUX.3] [--pixels 512 1024] [--modes none lean all] \
        [--card "NVIDIA H100 80GB HBM3"] [--blocks BLOCKS] [--threads 1]

Everything runs on the meta device, as in saved.py: LoRA of rank 16 on every linear layer of the blocks, the network in bf16, batch 1, 512
text tokens; attention and RMS norms count as one operation each, as on a GPU. Three ways: weber's own blocks, the library's blocks in
weber's loop, and diffusers + PEFT with adapters in fp32 and in bf16, which have no lean mode. weber's adapters have fp32 masters.

`moved` is what all operations but products and attention read and write; `skinny` what those products read and write that the GPU's
memory limits, as those of a low rank; `kernels` is the number of operations; `saved` what is alive when the forward pass ends, without
weights; `formula` how many FLOPs are executed beside that of saved.py. `products`, `attention`, `memory` and `starts` are ms of the
estimate, by the card's datasheet and what is reached of it; `s` is all of it. Nothing here is measured.
"""

from __future__ import annotations

import argparse
import warnings
from collections.abc import Callable, Iterator, Mapping, Sequence
from functools import partial
from typing import Any

import machine
import torch
from peft.tuners.lora import Linear
from saved import LIBRARIES, MODELS, RANK, Model, count_flops, count_rows, run_library, run_ours
from torch import nn

from weber.adapters.lora import build_lora
from weber.adapters.lowrank import LowRank
from weber.adapters.target import list_targets
from weber.config.adapter import AdapterConfig
from weber.memory.checkpointing import build_checkpointing
from weber.memory.estimate import build_profile
from weber.memory.joined import join_layers
from weber.memory.meta import FlashOnMeta
from weber.memory.rates import ATTENTION, MEMORY, PRODUCTS, STARTS, Rates, build_rates
from weber.memory.simulate import GpuOnMeta, Meter, Work, simulate_pass

H100 = "NVIDIA H100 80GB HBM3"
OURS = {"weber": True, "the library's blocks": False}
MODES = ("none", "lean", "all")


def build_options() -> argparse.ArgumentParser:
    parser = machine.build_parser(__doc__)
    default = ["FLUX.1-dev", "klein-4B", "klein-9B", "FLUX.2-dev", "FLUX.3"]
    parser.add_argument("--models", nargs="+", choices=list(MODELS), default=default, help="published sizes")
    parser.add_argument("--pixels", nargs="+", type=machine.read_count, default=[512, 1024], help="edges of the pictures")
    parser.add_argument("--modes", nargs="+", choices=MODES, default=list(MODES), help="gradient checkpointing")
    parser.add_argument("--card", default=H100, help="a GPU, by the name that its driver gives it")
    parser.add_argument("--blocks", type=machine.read_count, help="blocks of each kind, for all models")
    return parser


def main(words: Sequence[str] | None = None) -> None:
    parser = build_options()
    options = parser.parse_args(words)
    rates = build_rates(options.card)
    if rates is None:
        parser.error(f"argument --card: nothing is known of {options.card}")
    machine.prepare(options)
    warnings.filterwarnings("ignore", "Mismatch dtype")  # of the library's own forward with adapters in fp32
    print("\n| model | pixels | checkpointing | blocks of | moved GB | skinny GB | kernels | saved GiB | TFLOP | formula", end="")
    print(" | products | attention | memory | starts | s |")
    print("|---|---:|---|---|" + 11 * "---:|")
    changes = {} if options.blocks is None else {"num_layers": options.blocks, "num_single_layers": options.blocks}
    for name in options.models:
        for line in measure(MODELS[name], options.pixels, options.modes, rates=rates, changes=changes):
            print(f"| {name} | {line}", flush=True)


def measure(
    model: Model, edges: Sequence[int], modes: Sequence[str], *, rates: Rates, changes: Mapping[str, int]
) -> Iterator[str]:
    """The lines of a model. `changes`: of its published configuration."""
    with torch.device("meta"):
        transformer: Any = model.build(**changes)
    transformer = nn.Module.to(transformer, torch.bfloat16).requires_grad_(False).train()
    blocks = [block for name in model.block_names for block in transformer.get_submodule(name)]
    join_layers(blocks, model.keys.JOINED_LAYERS)
    modules = list_targets(transformer, "blocks", sets=model.keys.ADAPTER_TARGETS)
    parameters = [one for _, one in build_lora(transformer, AdapterConfig(rank=RANK), modules=modules, seed=0)]
    for edge in edges:
        tokens = (edge // 16) ** 2
        rows = _find_rows(transformer, model, tokens)
        for mode in modes:
            for way in [*OURS, *LIBRARIES]:
                if mode == "lean" and way in LIBRARIES:
                    continue
                _switch(transformer, parameters, way)
                if way in LIBRARIES:
                    kept, work = _rehearse_library(transformer, blocks, run=partial(run_library, transformer, model, tokens), mode=mode)
                else:
                    kept, work = _rehearse_ours(transformer, model, blocks, parameters, edge=edge, mode=mode, is_fused=OURS[way])
                formula = count_flops(model, transformer, mode, tokens=tokens, rows=rows, is_kept=way != "the library's blocks")
                yield f"{edge} | {mode} | {way} | {_describe(kept, work, formula, rates)} |"


def _describe(kept: int, work: Work, formula: float, rates: Rates) -> str:
    parts = rates.count_parts(work)
    seconds = " | ".join(f"{1000 * parts[name]:.0f}" for name in (PRODUCTS, ATTENTION, MEMORY, STARTS))
    moved = f"{work.moved_bytes / 1e9:.1f} | {rates.count_skinny_bytes(work) / 1e9:.1f} | {work.num_kernels} | {kept / 2**30:.2f}"
    flops = f"{work.num_flops / 1e12:.2f} | {work.num_flops / formula:.4f}"
    return f"{moved} | {flops} | {seconds} | {rates.count_seconds(work):.3f}"


def _switch(transformer: nn.Module, parameters: Sequence[nn.Parameter], way: str) -> None:
    """To the layers of one side, in its precision."""
    for module in transformer.modules():
        if isinstance(module, Linear):
            module.__class__ = Linear if way in LIBRARIES else LowRank
    for parameter in parameters:
        parameter.data, parameter.grad = parameter.data.to(LIBRARIES.get(way, torch.float32)), None


def _rehearse_ours(
    transformer: Any, model: Model, blocks: Sequence[nn.Module], parameters: Sequence[nn.Parameter], *, edge: int, mode: Any, is_fused: bool
) -> tuple[int, Work]:
    """Bytes that are kept, and work."""
    predictor = model.predictor(transformer)
    predictor.is_fused = is_fused
    predictor.run = build_checkpointing(mode, blocks=blocks, lean_layers=model.keys.LEAN_LAYERS)
    trace = simulate_pass(
        predictor,
        blocks,
        forward=lambda: run_ours(predictor, model, edge).float().square().mean(),
        parameters=parameters,
        is_gpu=True,
    )
    profile = build_profile([trace] * len(blocks), range(len(blocks)))
    return profile.saved_bytes, profile.work


def _rehearse_library(transformer: Any, blocks: Sequence[nn.Module], *, run: Callable[[], Any], mode: str) -> tuple[int, Work]:
    """The same of the library's own loop."""
    for block in blocks:
        block.forward = partial(_run_as_on_gpu, block.forward)
    if mode == "all":
        transformer.enable_gradient_checkpointing()
    with Meter() as meter:
        loss = run().float().square().mean()
        ahead = meter.read_stretch()
        torch.autograd.backward(loss)
        back = meter.read_stretch()
    transformer.disable_gradient_checkpointing()
    for block in blocks:
        del block.forward  # its class has one; what has another of its own is not plain
    return ahead.left_bytes, ahead.work + back.work


def _run_as_on_gpu(forward: Callable[..., Any], *args: Any, **kwargs: Any) -> Any:
    """A block's forward, also where it is run again."""
    with FlashOnMeta(), GpuOnMeta():
        return forward(*args, **kwargs)


def _find_rows(transformer: nn.Module, model: Model, tokens: int) -> dict[Any, int]:
    """Tokens that go through each layer with an adapter."""
    with torch.no_grad(), FlashOnMeta():
        rows = count_rows(transformer)
        run_library(transformer, model, tokens)
    for layer in rows:
        layer._forward_pre_hooks.clear()  # a block with hooks is the library's
    return rows


if __name__ == "__main__":
    main()
