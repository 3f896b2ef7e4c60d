"""The optimizers as rows."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass

import torch

from weber.config.optim import OptimConfig
from weber.optim.adamw_bf16 import AdamWBf16

Parameters = Sequence[torch.nn.Parameter]


@dataclass(frozen=True)
class OptimizerRow:
    """An optimizer: what it is, and how it is made from parameters, settings and the run's seed."""

    summary: str
    build: Callable[[Parameters, OptimConfig, int], torch.optim.Optimizer]


def _build_adamw(parameters: Parameters, config: OptimConfig, seed: int) -> torch.optim.Optimizer:
    fused = all(parameter.device.type in ("cuda", "cpu", "mps") for parameter in parameters)
    return torch.optim.AdamW(
        parameters, lr=config.lr, betas=config.betas, eps=config.eps, weight_decay=config.weight_decay, fused=fused
    )


def _build_adamw_bf16(parameters: Parameters, config: OptimConfig, seed: int) -> torch.optim.Optimizer:
    return AdamWBf16(
        parameters, lr=config.lr, betas=config.betas, eps=config.eps, weight_decay=config.weight_decay, seed=seed
    )


OPTIMIZERS = {
    "adamw": OptimizerRow("AdamW, fp32 state, fused kernel where the device has one", _build_adamw),
    "adamw_bf16": OptimizerRow("AdamW, bf16 state with stochastic rounding", _build_adamw_bf16),
}


def build_optimizer(parameters: Parameters, config: OptimConfig, *, seed: int) -> torch.optim.Optimizer:
    """The optimizer that `optim.name` names."""
    return OPTIMIZERS[config.name].build(parameters, config, seed)
