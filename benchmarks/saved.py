"""What is kept for the backward pass, and what is computed, on networks of full size without weights.

    python benchmarks/saved.py [--models FLUX.1-dev FLUX.2-dev klein-9B klein-4B FLUX.3] [--pixels 1024] [--blocks BLOCKS] [--threads 1]

Everything runs on the meta device, where tensors have shapes but no numbers; attention counts as flash attention. LoRA of rank 16 on
every linear layer of the blocks in fp32, the network in bf16, batch 1, 512 text tokens; with adapters in bf16 the libraries' own forward
keeps no fp32 copies of its inputs. `saved` is what is alive when the forward pass ends, without weights; `peak` is the most that the
backward pass adds to it, gradients of the adapters among it. FLOPs are executed ones, beside the formula of performance.md section 1:
2 lin + 3.5 att (a backward pass of flash attention executes 2.5 times its forward pass), one forward pass more for each block that is
checkpointed, and the products of the adapters. With fewer blocks of each kind than published, which is faster, all else that a network
computes weighs more beside the formula.
"""

from __future__ import annotations

import argparse
import warnings
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from typing import Any

import machine
import torch
from diffusers import Flux2Transformer2DModel, Flux3Transformer2DModel, FluxTransformer2DModel
from peft.tuners.lora import Linear
from torch import Tensor, nn

from weber.adapters.lora import build_lora
from weber.adapters.lowrank import LowRank
from weber.adapters.target import list_targets
from weber.config.adapter import AdapterConfig
from weber.families.flux1 import keys as keys1
from weber.families.flux1.predict import Flux1Predictor
from weber.families.flux2 import keys as keys2
from weber.families.flux2.predict import Flux2Predictor
from weber.families.flux3 import keys as keys3
from weber.families.flux3.predict import Flux3Predictor
from weber.memory.checkpointing import Mode, build_checkpointing
from weber.memory.meta import FlashOnMeta
from weber.memory.simulate import Meter

NUM_TEXT, RANK = 512, 16
LIBRARIES: dict[Any, torch.dtype] = {"diffusers + PEFT, adapters in bf16": torch.bfloat16, "diffusers + PEFT": torch.float32}
MODES: tuple[Mode, ...] = ("none", "lean", 2, "all")
BLOCK_NAMES = ("transformer_blocks", "single_transformer_blocks")
BLOCK_NAMES_3 = ("txt_mode_blocks", "mode_blocks.image", "single_transformer_blocks")


@dataclass(frozen=True)
class Model:
    """A published size. `weights`: of a block per token, in squares of the width."""

    build: Callable[..., nn.Module]
    predictor: Callable[[Any], Any]
    keys: Any
    width: int
    weights: int
    text_width: int
    block_names: tuple[str, ...] = BLOCK_NAMES


def _build2(num_blocks: tuple[int, int], num_heads: int, *, text_width: int, has_guidance: bool = False) -> Model:
    build = partial(
        Flux2Transformer2DModel,
        num_layers=num_blocks[0],
        num_single_layers=num_blocks[1],
        num_attention_heads=num_heads,
        joint_attention_dim=text_width,
        guidance_embeds=has_guidance,
    )
    return Model(build, Flux2Predictor, keys2, 128 * num_heads, 13, text_width)


MODELS = {
    "FLUX.1-dev": Model(partial(FluxTransformer2DModel, guidance_embeds=True), Flux1Predictor, keys1, 3072, 12, 4096),
    "FLUX.2-dev": _build2((8, 48), 48, text_width=15360, has_guidance=True),
    "klein-9B": _build2((8, 24), 32, text_width=12288),
    "klein-4B": _build2((5, 20), 24, text_width=7680),
    "FLUX.3": Model(Flux3Transformer2DModel, Flux3Predictor, keys3, 3072, 13, 20480, BLOCK_NAMES_3),
}


def build_options() -> argparse.ArgumentParser:
    parser = machine.build_parser(__doc__)
    parser.add_argument("--models", nargs="+", choices=list(MODELS), default=list(MODELS), help="published sizes")
    parser.add_argument("--pixels", nargs="+", type=machine.read_count, default=[1024], help="edges of the pictures")
    parser.add_argument("--blocks", type=machine.read_count, help="blocks of each kind, for all models")
    return parser


def main(words: Sequence[str] | None = None) -> None:
    options = build_options().parse_args(words)
    machine.prepare(options)
    warnings.filterwarnings("ignore", "Mismatch dtype")  # of the library's own forward with adapters in fp32
    print("\n| model | pixels | gradient checkpointing | saved GiB | peak GiB | TFLOP | formula | ratio | kernels |")
    print("|---|---:|---|---:|---:|---:|---:|---:|---:|")
    changes = {} if options.blocks is None else {"num_layers": options.blocks, "num_single_layers": options.blocks}
    for name in options.models:
        for line in measure(MODELS[name], options.pixels, changes=changes):
            print(f"| {name} | {line}", flush=True)


def measure(model: Model, edges: Sequence[int], *, changes: Mapping[str, int]) -> list[str]:
    """The lines of a model. `changes`: of its published configuration."""
    with torch.device("meta"):
        transformer: Any = model.build(**changes)
    transformer = nn.Module.to(transformer, torch.bfloat16).requires_grad_(False)
    modules = list_targets(transformer, "blocks", sets=model.keys.ADAPTER_TARGETS)
    parameters = build_lora(transformer, AdapterConfig(rank=RANK), modules=modules, seed=0)
    predictor = model.predictor(transformer)
    blocks = [block for name in model.block_names for block in transformer.get_submodule(name)]
    lines = []
    for edge in edges:
        tokens = (edge // 16) ** 2
        rows = count_rows(transformer)
        for mode in [*LIBRARIES, *MODES]:
            for module in transformer.modules():
                if isinstance(module, Linear):
                    module.__class__ = Linear if mode in LIBRARIES else LowRank
            for _, parameter in parameters:
                parameter.data, parameter.grad = parameter.data.to(LIBRARIES.get(mode, torch.float32)), None
            if mode in LIBRARIES:
                forward = partial(run_library, transformer, model, tokens)
            else:
                predictor.run = build_checkpointing(mode, blocks=blocks, lean_layers=model.keys.LEAN_LAYERS)
                forward = partial(run_ours, predictor, model, edge)
            with FlashOnMeta(), Meter() as meter:
                loss = forward().float().square().mean()
                ahead = meter.read_stretch()
                loss.backward()  # type: ignore[no-untyped-call]
                back = meter.read_stretch()
            work = ahead.work + back.work
            formula = count_flops(model, transformer, mode, tokens=tokens, rows=rows)
            numbers = f"{ahead.left_bytes / 2**30:.2f} | {back.peak_bytes / 2**30:.2f} | {work.num_flops / 1e12:.2f} | {formula / 1e12:.2f}"
            lines.append(f"{edge} | {mode} | {numbers} | {work.num_flops / formula:.4f} | {work.num_kernels} |")
    return lines


def run_ours(predictor: Any, model: Model, edge: int, *, device: str = "meta") -> Tensor:
    """The velocity of one picture, by a predictor."""
    draw = partial(torch.randn, device=device)
    channels, scale = (16, 8) if model.keys is keys1 else (128, 16)
    condition = {"text": draw(1, NUM_TEXT, model.text_width), "pooled": draw(1, 768), "guidance": draw(1).abs()}
    noisy = draw(1, channels, edge // scale, edge // scale)
    return predictor(noisy, torch.rand(1, device=device), condition)  # type: ignore[no-any-return]


def run_library(transformer: Any, model: Model, tokens: int, *, device: str = "meta") -> Tensor:
    """The same by the library's own forward."""
    draw = partial(torch.randn, device=device, dtype=torch.bfloat16)
    num_axes = 3 if model.keys is keys1 else 4
    inputs = {
        "hidden_states": draw(1, tokens, transformer.config.in_channels),
        "encoder_hidden_states": draw(1, NUM_TEXT, model.text_width),
        "timestep": draw(1).abs(),
        "img_ids": torch.zeros(tokens, num_axes, device=device),
        "txt_ids": torch.zeros(NUM_TEXT, num_axes, device=device),
    }
    if model.keys is not keys3 and transformer.config.guidance_embeds:
        inputs["guidance"] = draw(1).abs()
    if model.keys is keys1:
        inputs["pooled_projections"] = draw(1, 768)
    return transformer(**inputs, return_dict=False)[0]  # type: ignore[no-any-return]


def count_rows(transformer: nn.Module) -> dict[Any, int]:
    """Filled by the next forward pass: tokens that go through each layer with an adapter."""
    rows: dict[Any, int] = {}

    def count(layer: nn.Module, inputs: tuple[Tensor, ...]) -> None:
        rows[layer] = inputs[0].numel() // inputs[0].shape[-1]

    for module in transformer.modules():
        if isinstance(module, Linear):
            module.register_forward_pre_hook(count)
    return rows


def count_flops(
    model: Model, transformer: Any, mode: object, *, tokens: int, rows: dict[Any, int], is_kept: bool | None = None
) -> float:
    """The formula. Blocks that see text or picture alone have their own number of tokens. `is_kept`: what the adapters' A make of the input
    is not computed again in the backward pass; left out: as `mode` does it."""
    adapters = {layer: 2 * RANK * number * (layer.in_features + layer.out_features) for layer, number in rows.items()}
    again = {layer: 2 * RANK * number * layer.in_features for layer, number in rows.items()}
    num_flops, number = 0.0, 0
    for name in model.block_names:
        seen = {"txt_mode_blocks": NUM_TEXT, "mode_blocks.image": tokens}.get(name, tokens + NUM_TEXT)
        linear, attention = 2 * model.weights * model.width**2 * seen, 4 * seen**2 * model.width
        for block in transformer.get_submodule(name):
            number += 1
            twice = mode == "all" or (isinstance(mode, int) and number % mode == 0)
            inside = [layer for layer in block.modules() if layer in adapters]
            num_flops += (2 + twice) * linear + (3.5 + twice) * attention + (3 + twice) * sum(adapters[layer] for layer in inside)
            num_flops += 0 if (mode in LIBRARIES if is_kept is None else is_kept) else sum(again[layer] for layer in inside)
    return num_flops


if __name__ == "__main__":
    main()
