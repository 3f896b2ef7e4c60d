"""Laws of the noise level t in 0..1 (1 = pure noise). Every law has one signature: uniform draws in, t out.

Legend: B samples, u a uniform draw in 0..1, n = Phi^-1(u) a normal one, S the logistic function.

References: [SD3] Esser et al. 2024, arXiv:2403.03206, section 3.1 and appendix B.2, where t = 1 is noise as it is here; [kohya]
sd-scripts, `get_noisy_model_input_and_timesteps`; [ST] SimpleTuner's options of the flow schedule.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence

import torch
from torch import Tensor

from weber.config.objective import OF_LAWS, ObjectiveConfig
from weber.objective.density import build_beta, build_cubic, draw_points

Law = Callable[[Tensor, ObjectiveConfig], Tensor]
"""Uniform draws (B,) fp64 in 0..1 and settings to t (B,)."""


def _uniform(uniform_B: Tensor, config: ObjectiveConfig) -> Tensor:
    return uniform_B


def _sigmoid(uniform_B: Tensor, config: ObjectiveConfig) -> Tensor:
    """S(scale (n + offset)) [kohya, ST]; both shifts start from it."""
    return torch.sigmoid(config.sigmoid_scale * (torch.special.ndtri(uniform_B) + config.sigmoid_offset))


def _logit_normal(uniform_B: Tensor, config: ObjectiveConfig) -> Tensor:
    """S(mean + std n) [SD3 eq. 19]."""
    return torch.sigmoid(config.logit_mean + config.logit_std * torch.special.ndtri(uniform_B))


def _mode(uniform_B: Tensor, config: ObjectiveConfig) -> Tensor:
    """1 - u - s (cos^2(pi u / 2) - 1 + u) [SD3 eq. 20]; it is symmetric about t = 1/2, so that which end is noise does not matter."""
    return 1 - uniform_B - config.mode_scale * (torch.cos(math.pi / 2 * uniform_B).square() - 1 + uniform_B)


def _cosmap(uniform_B: Tensor, config: ObjectiveConfig) -> Tensor:
    """1 - 1 / (tan(pi u / 2) + 1), of density 2 / (pi (1 - 2 t + 2 t^2)) [SD3 eq. 21 and 22]."""
    return 1 - 1 / (torch.tan(math.pi / 2 * uniform_B) + 1)


def _beta(uniform_B: Tensor, config: ObjectiveConfig) -> Tensor:
    """Density t^(a - 1) (1 - t)^(b - 1) [ST]."""
    return torch.sigmoid(draw_points(build_beta(*config.beta_shape), uniform_B))


def _cubic(uniform_B: Tensor, config: ObjectiveConfig) -> Tensor:
    """Density given at equal distances, with a monotone cubic curve between them [ST]."""
    return draw_points(build_cubic(tuple(config.cubic_weights)), uniform_B)


def _fast(uniform_B: Tensor, config: ObjectiveConfig) -> Tensor:
    """The noise levels of four steps, pure noise seven times in ten [ST]."""
    return _choose([0.25, 0.5, 0.75] + [1.0] * 7, uniform_B)


def _list(uniform_B: Tensor, config: ObjectiveConfig) -> Tensor:
    """One of the list, each equally likely; who wants each in its turn feeds (turn + 1/2) / length [ST]."""
    return _choose(config.timestep_list, uniform_B)


LAWS: dict[str, Law] = {
    "uniform": _uniform,
    "sigmoid": _sigmoid,
    "logit_normal": _logit_normal,
    "mode": _mode,
    "cosmap": _cosmap,
    "beta": _beta,
    "cubic": _cubic,
    "shift": _sigmoid,
    "token_shift": _sigmoid,
    "fast": _fast,
    "list": _list,
}


def shift_timesteps(t: Tensor, k: float) -> Tensor:
    """t' = k t / (1 + (k - 1) t) [SD3 eq. 23]: k above 1 moves t toward noise."""
    return k * t / (1 + (k - 1) * t)


def is_shifted_by_tokens(config: ObjectiveConfig) -> bool:
    """Whether the number of image tokens says how far t is pushed."""
    return config.timesteps == "token_shift" or config.shift == "tokens"


def build_timesteps(config: ObjectiveConfig, uniforms: Sequence[float], *, token_shift: float) -> Tensor:
    """t (B,) fp32 from one uniform draw in 0..1 per sample, by the law of `objective.timesteps`, which has been filled in.

    `token_shift` is the model's own k for the number of image tokens at hand.
    """
    assert config.timesteps is not None
    t = LAWS[config.timesteps](torch.tensor(uniforms, dtype=torch.float64), config)
    k = token_shift if is_shifted_by_tokens(config) else config.shift
    return (t if k is None else shift_timesteps(t, float(k))).float()


def describe_law(config: ObjectiveConfig) -> str:
    """The law and all of its settings that differ from their defaults, in a line."""
    names = [*OF_LAWS, "shift", "stratified"]
    changed = [name for name in names if config.model_dump()[name] != ObjectiveConfig.model_fields[name].default]
    return ", ".join([f"timesteps {config.timesteps}", *(f"{name} {_show(config.model_dump()[name])}" for name in changed)])


def _show(value: object) -> str:
    if isinstance(value, list | tuple):
        return f"[{', '.join(f'{one:g}' for one in value)}]"
    return f"{value:g}" if isinstance(value, float) else str(value).lower()


def _choose(levels: Sequence[float], uniform_B: Tensor) -> Tensor:
    return torch.tensor(levels, dtype=uniform_B.dtype)[(len(levels) * uniform_B).long().clamp(max=len(levels) - 1)]
