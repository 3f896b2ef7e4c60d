"""Our training step against the plain diffusers + PEFT loop: the same weights, the same data, one process, taking turns.

    python benchmarks/step.py [--steps 40] [--tokens 64 256 1024] [--kinds lora full bf16] [--threads 1]

The model is a FLUX.1 of 2 double and 4 single blocks, 128 wide; 64 text tokens, one picture per step, everything in memory. `lora`: in
fp32, with a LoRA of rank 16 on every linear layer of the blocks and the last one (`all+ffs`); `full`: all weights learn, in fp32; `bf16`:
the LoRA in fp32, the model in bf16. The other side is what diffusers' `train_dreambooth_lora_flux.py` does between
`accelerator.accumulate` and the progress bar: `transformer.add_adapter`, noise, timestep by its density function,
`FluxTransformer2DModel.forward` (in bf16 under autocast, as accelerate has it), weighted mean squared error, clipping,
`torch.optim.AdamW` with its defaults, `loss.item()`. Ours is `weber.training.step.train_step` with its defaults. Ratio: median of the plain
loop's steps over the median of ours, over so many steps of each side for every number of image tokens, without and with gradient
checkpointing.
"""

from __future__ import annotations

import argparse
import tempfile
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from statistics import median

import machine
import numpy as np
import torch
from diffusers import FlowMatchEulerDiscreteScheduler, FluxPipeline, FluxTransformer2DModel
from diffusers.training_utils import cast_training_params, compute_density_for_timestep_sampling, compute_loss_weighting_for_sd3
from peft import LoraConfig
from torch import Tensor

from weber.adapters.lora import build_lora
from weber.adapters.target import list_targets
from weber.config.load import build_config
from weber.config.memory import MemoryConfig
from weber.data.seeds import build_seed
from weber.families.table import build_family
from weber.memory.load import load_predictor
from weber.memory.run import build_run
from weber.objective.flow import draw_noise
from weber.optim.table import build_optimizer
from weber.planning.resolve import build_resolved
from weber.pocket.networks import PocketSize
from weber.pocket.random import build_random_model
from weber.training.batch import Batch
from weber.training.learner import Learner
from weber.training.question import draw_timesteps
from weber.training.step import train_step

SIZE = PocketSize(2, 4, 4, 32, (8, 12, 12), 64, 2, (8, 8, 8, 8), 4)
NUM_TEXT_TOKENS = 64
LATENT_EDGES = {64: 16, 256: 32, 1024: 64}
"""Edge of the latents that are so many image tokens."""

NUM_WARM_UP = 5
CLIP_NORM = 1.0
RANK = 16
TARGETS = "all+ffs"
KINDS = ("lora", "full", "bf16")


@dataclass(frozen=True)
class Plain:
    """What the plain loop needs."""

    transformer: FluxTransformer2DModel
    parameters: list[torch.nn.Parameter]
    optimizer: torch.optim.Optimizer
    scheduler: FlowMatchEulerDiscreteScheduler
    dtype: torch.dtype


def build_options() -> argparse.ArgumentParser:
    parser = machine.build_parser(__doc__)
    parser.add_argument("--steps", type=machine.read_count, default=40, help="measured steps of each side and case")
    parser.add_argument("--tokens", type=int, nargs="+", choices=list(LATENT_EDGES), default=list(LATENT_EDGES), help="image tokens")
    parser.add_argument("--kinds", nargs="+", choices=KINDS, default=list(KINDS), help="what is trained, and in which precision")
    return parser


def main(words: Sequence[str] | None = None) -> None:
    options = build_options().parse_args(words)
    machine.prepare(options)
    print(f"median and 95th percentile of {options.steps} steps each, in ms\n")
    print("kind image tokens checkpointing           weber           plain  ratio   first loss and gradient norm: weber, plain")
    with tempfile.TemporaryDirectory(prefix="weber-step-") as name:
        model = build_random_model(Path(name), size=SIZE)
        for kind in options.kinds:
            for num_tokens in options.tokens:
                for checkpointing in (False, True):
                    line = measure(model, num_tokens, kind=kind, checkpointing=checkpointing, num_steps=options.steps)
                    print(f"{kind} {line}", flush=True)


def measure(model: Path, num_tokens: int, *, kind: str, checkpointing: bool, num_steps: int) -> str:
    """One line of the table."""
    learner = build_learner(model, kind, checkpointing=checkpointing, num_steps=1 + NUM_WARM_UP + num_steps)
    plain = build_plain(model, kind, checkpointing=checkpointing, learner=learner)
    batch = draw_batch(LATENT_EDGES[num_tokens])

    seed = learner.config.train.seed
    noise = draw_noise(batch.latents_BCHW, [build_seed(seed, 0, 0, "noise")])
    (t_B,) = draw_timesteps(learner, [batch], step=0)
    ours, other = train_step(learner, [batch], step=0), train_plain(plain, batch, noise, t_B)
    parity = "   ".join(f"{ours[key]:.7f}, {other[key]:.7f}" for key in ("loss", "grad_norm"))

    sides: list[Callable[[int], object]] = [lambda step: train_step(learner, [batch], step=step), lambda step: train_plain(plain, batch)]
    seconds: list[list[float]] = [[], []]
    for step in range(1, 1 + NUM_WARM_UP + num_steps):
        for side in (0, 1) if step % 2 else (1, 0):
            start = time.perf_counter()
            sides[side](step)
            if step > NUM_WARM_UP:
                seconds[side].append(time.perf_counter() - start)
    cells = [f"{1e3 * median(side):7.1f} {1e3 * np.percentile(side, 95):7.1f}" for side in seconds]
    ratio = median(seconds[1]) / median(seconds[0])
    return f"{num_tokens:12} {'on' if checkpointing else 'off':>13} {cells[0]} {cells[1]} {ratio:6.2f}   {parity}"


def build_learner(model: Path, kind: str, *, checkpointing: bool, num_steps: int) -> Learner:
    """Our side, as `weber.training.assemble` puts it together."""
    adapter = {"kind": "full"} if kind == "full" else {"rank": RANK, "targets": TARGETS}
    config = build_config(
        {
            "model": {"path": str(model), "variant": "pocket"},
            "data": [{"path": "unused"}],
            "adapter": adapter,
            "optim": {"clip_norm": CLIP_NORM, "lr": 1e-4},
        }
    )
    family = build_family(config.model)
    config = build_resolved(config, family, num_steps=num_steps)
    dtype = torch.bfloat16 if kind == "bf16" else torch.float32
    predictor = load_predictor(family, device=torch.device("cpu"), dtype=dtype)
    predictor.run = build_run(MemoryConfig(gradient_checkpointing="all" if checkpointing else "none"), predictor, family=family)
    if kind == "full":
        parameters = list(predictor.transformer.requires_grad_(True).named_parameters())
    else:
        modules = list_targets(predictor.transformer, TARGETS, sets=family.adapter_targets)
        parameters = build_lora(predictor.transformer, config.adapter, modules=modules, seed=0)
    predictor.transformer.train()
    optimizer = build_optimizer([parameter for _, parameter in parameters], config.optim, seed=0)
    return Learner(config, family, predictor, parameters, optimizer, family.sample_defaults.training_guidance)


def build_plain(model: Path, kind: str, *, checkpointing: bool, learner: Learner) -> Plain:
    """The script's side, with our side's initial weights."""
    dtype = torch.bfloat16 if kind == "bf16" else torch.float32
    transformer = FluxTransformer2DModel.from_pretrained(model, subfolder="transformer", torch_dtype=dtype)
    transformer.requires_grad_(kind == "full")
    if checkpointing:
        transformer.enable_gradient_checkpointing()
    if kind != "full":
        modules = list_targets(transformer, TARGETS, sets=learner.family.adapter_targets)
        transformer.add_adapter(LoraConfig(r=RANK, lora_alpha=RANK, init_lora_weights="gaussian", target_modules=modules))
        cast_training_params(transformer)
    transformer.load_state_dict(learner.predictor.transformer.state_dict())
    transformer.train()
    parameters = [parameter for parameter in transformer.parameters() if parameter.requires_grad]
    assert len(parameters) == len(learner.parameters)
    optimizer = torch.optim.AdamW(parameters, lr=1e-4, betas=(0.9, 0.999), weight_decay=1e-4, eps=1e-8)
    scheduler = FlowMatchEulerDiscreteScheduler.from_pretrained(model, subfolder="scheduler")
    return Plain(transformer, parameters, optimizer, scheduler, dtype)


def draw_batch(latent_edge: int) -> Batch:
    """One picture and its text, as the cache would give them."""
    generator = torch.Generator().manual_seed(0)
    text = torch.randn(1, NUM_TEXT_TOKENS, SIZE.text_width, generator=generator)
    pooled = torch.randn(1, SIZE.text_width, generator=generator)
    latents = torch.randn(1, 16, latent_edge, latent_edge, generator=generator)
    return Batch(latents, {"text": text, "pooled": pooled}, (0,), ("picture",))


def train_plain(plain: Plain, batch: Batch, noise: Tensor | None = None, t_B: Tensor | None = None) -> dict[str, float]:
    """One step as in the script; the noise and t may be given, to compare losses."""
    latents = batch.latents_BCHW
    num, channels, height, width = latents.shape
    image_ids = FluxPipeline._prepare_latent_image_ids(num, height // 2, width // 2, latents.device, latents.dtype)
    text_ids = torch.zeros(batch.condition["text"].shape[1], 3)
    if noise is None:
        noise = torch.randn_like(latents)
    if t_B is None:
        u = compute_density_for_timestep_sampling("none", batch_size=num, logit_mean=0.0, logit_std=1.0, mode_scale=1.29)
        t_B = plain.scheduler.timesteps[(u * plain.scheduler.config.num_train_timesteps).long()] / 1000
    sigmas = t_B.view(-1, 1, 1, 1)
    noisy = (1.0 - sigmas) * latents + sigmas * noise
    packed = FluxPipeline._pack_latents(noisy, num, channels, height, width)
    with torch.autocast("cpu", torch.bfloat16, enabled=plain.dtype == torch.bfloat16):
        prediction = plain.transformer(
            hidden_states=packed.to(plain.dtype),
            timestep=t_B,
            guidance=torch.tensor([1.0]).expand(num),
            pooled_projections=batch.condition["pooled"].to(plain.dtype),
            encoder_hidden_states=batch.condition["text"].to(plain.dtype),
            txt_ids=text_ids,
            img_ids=image_ids,
            return_dict=False,
        )[0]
    prediction = FluxPipeline._unpack_latents(prediction, height=8 * height, width=8 * width, vae_scale_factor=8)
    weighting = compute_loss_weighting_for_sd3("none", sigmas)
    squares = weighting.float() * (prediction.float() - (noise - latents).float()) ** 2
    loss = torch.mean(squares.reshape(num, -1), 1).mean()
    loss.backward()
    norm = torch.nn.utils.clip_grad_norm_(plain.parameters, CLIP_NORM)
    plain.optimizer.step()
    plain.optimizer.zero_grad()
    return {"loss": loss.detach().item(), "grad_norm": norm.item()}


if __name__ == "__main__":
    main()
