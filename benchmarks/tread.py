"""Steps in which tokens skip blocks (`objective.tread`) against plain ones: the same model and data, one process, taking turns.

    python benchmarks/tread.py [--rounds 8] [--tokens 1024] [--threads 1]

The model is a FLUX.1 of 4 double and 16 single blocks, 256 wide, in fp32, with a LoRA of rank 16 on every layer of the attention; 64 text
tokens, so many image tokens, one picture per step, everything in memory. A round is a step of every ratio; 2 more rounds warm up. A step
is forward, backward and AdamW. The route leads from block 2 to block -3, past 16 of 20 blocks. Ratio: median of the routed steps over the
median of the plain ones; beside it the same for the FLOPs, counted on the meta device.
"""

from __future__ import annotations

import argparse
import math
import time
from collections.abc import Callable, Sequence
from functools import partial
from statistics import median
from typing import Any

import machine
import torch
from diffusers import FluxTransformer2DModel
from peft import LoraConfig
from torch import Tensor

from weber.config.objective import RouteConfig
from weber.families.flux1.predict import Flux1Predictor
from weber.families.route import ROUTE_SCORES, build_routes
from weber.memory.meta import FlashOnMeta
from weber.memory.simulate import Meter

RATIOS = (0.0, 0.25, 0.5, 0.75)
NUM_BLOCKS = (4, 16)
NUM_TEXT_TOKENS = 64
TARGETS = ["to_q", "to_k", "to_v", "to_out.0"]
NUM_WARM_UP = 2


def build_options() -> argparse.ArgumentParser:
    parser = machine.build_parser(__doc__)
    parser.add_argument("--rounds", type=machine.read_count, default=8, help="measured rounds, each with a step of every ratio")
    parser.add_argument("--tokens", type=int, choices=(64, 256, 1024), default=1024, help="image tokens")
    return parser


def main(words: Sequence[str] | None = None) -> None:
    options = build_options().parse_args(words)
    machine.prepare(options)
    torch.manual_seed(0)
    run = build_step(build_predictor("cpu"), num_tokens=options.tokens)
    seconds: dict[float, list[float]] = {ratio: [] for ratio in RATIOS}
    for number in range(NUM_WARM_UP + options.rounds):
        for ratio in RATIOS:
            start = time.perf_counter()
            run(ratio)
            if number >= NUM_WARM_UP:
                seconds[ratio].append(time.perf_counter() - start)
    medians = {ratio: median(found) for ratio, found in seconds.items()}
    flops = count_flops(options.tokens)
    for ratio in RATIOS:
        time_ratio, flop_ratio = medians[ratio] / medians[0.0], flops[ratio] / flops[0.0]
        print(f"ratio {ratio:4}: {1000 * medians[ratio]:6.0f} ms, x {time_ratio:.2f}; {flops[ratio] / 1e9:6.1f} GFLOP, x {flop_ratio:.2f}")


def build_predictor(device: str) -> Flux1Predictor:
    """The network with a LoRA."""
    num_double, num_single = NUM_BLOCKS
    with torch.device(device):
        transformer = FluxTransformer2DModel(
            in_channels=64,
            num_layers=num_double,
            num_single_layers=num_single,
            attention_head_dim=32,
            num_attention_heads=8,
            joint_attention_dim=128,
            pooled_projection_dim=128,
            guidance_embeds=True,
            axes_dims_rope=(8, 12, 12),
        ).requires_grad_(False)
        transformer.add_adapter(LoraConfig(r=16, target_modules=TARGETS))
    return Flux1Predictor(transformer)


def build_step(predictor: Flux1Predictor, *, num_tokens: int) -> Callable[[float], None]:
    """A training step with a share of the tokens left out."""
    learning = [one for one in predictor.parameters() if one.requires_grad]
    optimizer = torch.optim.AdamW(learning, lr=1e-4)
    build: Callable[..., Tensor] = partial(torch.randn, device=learning[0].device)
    edge = 2 * math.isqrt(num_tokens)
    noisy, target = build(1, 16, edge, edge), build(1, 16, edge, edge)
    condition = {"text": build(1, NUM_TEXT_TOKENS, 128), "pooled": build(1, 128), "guidance": build(1)}

    def run(ratio: float) -> None:
        predictor.routes = build_routes([RouteConfig(ratio=ratio, first=2, last=-3)], num_blocks=sum(NUM_BLOCKS))
        scores = torch.rand(num_tokens, device=noisy.device)
        loss: Any = (predictor(noisy, build(1).sigmoid(), condition | {ROUTE_SCORES: scores}) - target).square().mean()
        torch.autograd.backward(loss)
        if not noisy.is_meta:
            optimizer.step()
        optimizer.zero_grad()

    return run


def count_flops(num_tokens: int) -> dict[float, int]:
    """Of a step's forward and backward pass, by ratio."""
    run, flops = build_step(build_predictor("meta"), num_tokens=num_tokens), {}
    with FlashOnMeta(), Meter() as meter:
        for ratio in RATIOS:
            run(ratio)
            flops[ratio] = meter.read_stretch().work.num_flops
    return flops


if __name__ == "__main__":
    main()
