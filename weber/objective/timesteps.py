"""Laws of the noise level t in 0..1 (1 = pure noise). Every law has one signature: standard draws in, t out.

Legend: B samples. Formulas: kohya sd-scripts, `get_noisy_model_input_and_timesteps`; Esser et al. 2024, arXiv:2403.03206, eq. 23.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import torch
from torch import Tensor

from weber.config.objective import ObjectiveConfig


@dataclass(frozen=True)
class Draws:
    """One standard draw per sample, fp64: `normal_B` and `uniform_B` in 0..1."""

    normal_B: Tensor
    uniform_B: Tensor


Law = Callable[[Draws, ObjectiveConfig, float], Tensor]


def _uniform(draws: Draws, config: ObjectiveConfig, token_shift: float) -> Tensor:
    return draws.uniform_B


def _sigmoid(draws: Draws, config: ObjectiveConfig, token_shift: float) -> Tensor:
    return torch.sigmoid(config.sigmoid_scale * draws.normal_B)


def _shift(draws: Draws, config: ObjectiveConfig, token_shift: float) -> Tensor:
    assert config.shift is not None
    return shift_timesteps(_sigmoid(draws, config, token_shift), config.shift)


def _token_shift(draws: Draws, config: ObjectiveConfig, token_shift: float) -> Tensor:
    return shift_timesteps(_sigmoid(draws, config, token_shift), token_shift)


LAWS: dict[str, Law] = {"uniform": _uniform, "sigmoid": _sigmoid, "shift": _shift, "token_shift": _token_shift}


def shift_timesteps(t: Tensor, k: float) -> Tensor:
    """t' = k t / (1 + (k - 1) t): k above 1 moves t toward noise."""
    return k * t / (1 + (k - 1) * t)


def draw_timesteps(config: ObjectiveConfig, generators: list[torch.Generator], *, token_shift: float) -> Tensor:
    """t (B,) fp32, one per generator. `token_shift` is the model's k for the number of image tokens at hand."""
    normal = torch.cat([torch.randn(1, generator=generator, dtype=torch.float64) for generator in generators])
    uniform = torch.cat([torch.rand(1, generator=generator, dtype=torch.float64) for generator in generators])
    return LAWS[config.timesteps](Draws(normal, uniform), config, token_shift).float()
