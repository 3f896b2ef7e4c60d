"""Laws of the noise level t in 0..1 (1 = pure noise). Every law has one signature: uniform draws in, t out.

Legend: B samples. Formulas: kohya sd-scripts, `get_noisy_model_input_and_timesteps`; Esser et al. 2024, arXiv:2403.03206, eq. 23.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence

import torch
from torch import Tensor

from weber.config.objective import ObjectiveConfig

Law = Callable[[Tensor, ObjectiveConfig, float], Tensor]
"""Uniform draws (B,) fp64 in 0..1, settings, and the model's shift k for the number of image tokens at hand, to t (B,)."""


def _uniform(uniform_B: Tensor, config: ObjectiveConfig, token_shift: float) -> Tensor:
    return uniform_B


def _sigmoid(uniform_B: Tensor, config: ObjectiveConfig, token_shift: float) -> Tensor:
    return torch.sigmoid(config.sigmoid_scale * torch.special.ndtri(uniform_B))


def _shift(uniform_B: Tensor, config: ObjectiveConfig, token_shift: float) -> Tensor:
    assert isinstance(config.shift, float)
    return shift_timesteps(_sigmoid(uniform_B, config, token_shift), config.shift)


def _token_shift(uniform_B: Tensor, config: ObjectiveConfig, token_shift: float) -> Tensor:
    return shift_timesteps(_sigmoid(uniform_B, config, token_shift), token_shift)


def _fast(uniform_B: Tensor, config: ObjectiveConfig, token_shift: float) -> Tensor:
    # SimpleTuner's fast schedule (simpletuner.md 1.7): the noise levels of four steps, pure noise seven times in ten
    return torch.tensor([0.25, 0.5, 0.75] + [1.0] * 7, dtype=uniform_B.dtype)[(10 * uniform_B).long().clamp(max=9)]


LAWS: dict[str, Law] = {"uniform": _uniform, "sigmoid": _sigmoid, "shift": _shift, "token_shift": _token_shift, "fast": _fast}


def shift_timesteps(t: Tensor, k: float) -> Tensor:
    """t' = k t / (1 + (k - 1) t): k above 1 moves t toward noise."""
    return k * t / (1 + (k - 1) * t)


def build_timesteps(config: ObjectiveConfig, uniforms: Sequence[float], *, token_shift: float) -> Tensor:
    """t (B,) fp32 from one uniform draw in 0..1 per sample, by the law of `objective.timesteps`, which has been filled in."""
    assert config.timesteps is not None
    return LAWS[config.timesteps](torch.tensor(uniforms, dtype=torch.float64), config, token_shift).float()
