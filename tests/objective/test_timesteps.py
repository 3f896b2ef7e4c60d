"""Laws of the noise level: each against its formula on fed draws, and against its distribution function on many."""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import get_args

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from weber.config.objective import ObjectiveConfig
from weber.data.seeds import draw_uniform
from weber.objective.timesteps import LAWS, build_timesteps, shift_timesteps

NORMAL = torch.tensor([-2.5, -0.7, 0.0, 0.3, 1.9], dtype=torch.float64)
UNIFORM = torch.special.ndtr(NORMAL)
NUM_DRAWS = 100_000
CONFIGS = {
    "uniform": ObjectiveConfig(timesteps="uniform"),
    "sigmoid": ObjectiveConfig(timesteps="sigmoid"),
    "narrow sigmoid": ObjectiveConfig(timesteps="sigmoid", sigmoid_scale=0.5),
    "shift": ObjectiveConfig(timesteps="shift", shift=3.1582),
    "shift down": ObjectiveConfig(timesteps="shift", shift=0.4, sigmoid_scale=1.3),
    "token_shift": ObjectiveConfig(timesteps="token_shift"),
}


def _apply(config: ObjectiveConfig, *, token_shift: float = 1.0) -> list[float]:
    numbers: list[float] = LAWS[config.timesteps](UNIFORM, config, token_shift).tolist()
    return numbers


def _logistic(x: float) -> float:
    return 1 / (1 + math.exp(-x))


def test_uniform_is_the_draw() -> None:
    assert _apply(CONFIGS["uniform"], token_shift=5.0) == UNIFORM.tolist()


@pytest.mark.parametrize("scale", [0.3, 1.0, 2.0])
def test_sigmoid(scale: float) -> None:
    config = ObjectiveConfig(timesteps="sigmoid", sigmoid_scale=scale)
    assert _apply(config, token_shift=5.0) == pytest.approx([_logistic(scale * z) for z in NORMAL.tolist()], rel=1e-12)


@pytest.mark.parametrize(("shift", "scale"), [(3.0, 1.0), (1.0, 1.0), (0.5, 2.0)])
def test_shift(shift: float, scale: float) -> None:
    config = ObjectiveConfig(timesteps="shift", shift=shift, sigmoid_scale=scale)
    u = [_logistic(scale * z) for z in NORMAL.tolist()]
    assert _apply(config, token_shift=5.0) == pytest.approx([shift * one / (1 + (shift - 1) * one) for one in u], rel=1e-12)


@pytest.mark.parametrize("mu", [0.5, 1.15])
def test_token_shift_is_the_form_of_kohya(mu: float) -> None:
    u = [_logistic(z) for z in NORMAL.tolist()]
    expected = [math.exp(mu) / (math.exp(mu) + (1 / one - 1)) for one in u]
    assert _apply(CONFIGS["token_shift"], token_shift=math.exp(mu)) == pytest.approx(expected, rel=1e-12)


@pytest.mark.parametrize("name", CONFIGS)
def test_extreme_draws_stay_in_range(name: str) -> None:
    t = build_timesteps(CONFIGS[name], [2**-53, 1 - 2**-53], token_shift=25.0)
    assert 0 <= t[0] < 0.1
    assert 0.9 < t[1] <= 1


def test_every_law_of_the_config_is_here() -> None:
    choices = get_args(get_args(ObjectiveConfig.model_fields["timesteps"].annotation)[0])
    assert set(LAWS) == set(choices)


def test_the_fast_law_draws_the_levels_of_four_steps_and_mostly_noise() -> None:
    uniforms = [draw_uniform(0, number, "timestep") for number in range(NUM_DRAWS)]
    t = build_timesteps(ObjectiveConfig(timesteps="fast"), [*uniforms, 0.0, 1 - 2**-53], token_shift=3.0)
    levels, counts = t[:-2].unique(return_counts=True)
    assert levels.tolist() == [0.25, 0.5, 0.75, 1.0]
    assert (counts / NUM_DRAWS).tolist() == pytest.approx([0.1, 0.1, 0.1, 0.7], abs=0.02)
    assert t[-2:].tolist() == [0.25, 1.0]


@given(t=st.floats(0, 1), k=st.floats(0.01, 100))
def test_shift_keeps_the_ends_and_is_undone_by_its_inverse(t: float, k: float) -> None:
    shifted = shift_timesteps(torch.tensor([0.0, t, 1.0], dtype=torch.float64), k)
    assert (shifted[0], shifted[2]) == (0.0, pytest.approx(1.0, abs=1e-12))
    assert (shifted[1] >= t - 1e-12) if k >= 1 else (shifted[1] <= t + 1e-12)
    assert shift_timesteps(shifted, 1 / k)[1].item() == pytest.approx(t, abs=1e-9)


def _cumulative(config: ObjectiveConfig, token_shift: float) -> Callable[[np.ndarray], np.ndarray]:
    """P(t <= x): the law undone, then the distribution of its draw."""
    k = {"shift": config.shift or 1.0, "token_shift": token_shift}.get(config.timesteps, 1.0)

    def cumulative(x: np.ndarray) -> np.ndarray:
        if config.timesteps == "uniform":
            return x
        u = x / (k - (k - 1) * x)
        z = np.log(u / (1 - u)) / config.sigmoid_scale
        return 0.5 * (1 + torch.erf(torch.from_numpy(z / math.sqrt(2))).numpy())

    return cumulative


@pytest.mark.parametrize("name", CONFIGS)
def test_distribution(name: str) -> None:
    """Kolmogorov-Smirnov: the largest distance of two distribution functions is below 1.95 / sqrt(n) with probability 0.999."""
    config, token_shift = CONFIGS[name], math.exp(0.5)
    t = build_timesteps(config, [draw_uniform(0, number, "timestep") for number in range(NUM_DRAWS)], token_shift=token_shift)
    assert t.dtype == torch.float32
    assert t.shape == (NUM_DRAWS,)
    assert t.min() > 0
    assert t.max() < 1
    x, steps = np.sort(t.double().numpy()), np.arange(NUM_DRAWS + 1) / NUM_DRAWS
    distances = {}
    for other in CONFIGS:
        expected = _cumulative(CONFIGS[other], token_shift)(x)
        distances[other] = max(np.abs(expected - steps[:-1]).max(), np.abs(expected - steps[1:]).max())
    assert distances.pop(name) < 1.95 / math.sqrt(NUM_DRAWS)
    assert min(distances.values()) > 0.05, "the test would not tell this law from another"


def test_a_sample_does_not_depend_on_its_batch() -> None:
    uniforms = [draw_uniform(1, place) for place in range(4)]
    together = build_timesteps(CONFIGS["sigmoid"], uniforms, token_shift=1.0)
    alone = [build_timesteps(CONFIGS["sigmoid"], [one], token_shift=1.0) for one in uniforms]
    assert torch.equal(together, torch.cat(alone))
    assert len(set(together.tolist())) == 4
