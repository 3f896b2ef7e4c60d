"""Noise levels of the sampler."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np

if TYPE_CHECKING:
    from diffusers import FlowMatchEulerDiscreteScheduler


def list_sigmas(scheduler: FlowMatchEulerDiscreteScheduler, num_steps: int, *, mu: float | None = None) -> list[float]:
    """Noise levels as the library's pipelines ask their scheduler for them, from 1 down to 0."""
    scheduler.set_timesteps(sigmas=np.linspace(1.0, 1 / num_steps, num_steps), mu=mu)
    return [float(sigma) for sigma in scheduler.sigmas]
