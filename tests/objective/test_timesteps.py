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
from numpy.typing import NDArray

from weber.config.objective import ObjectiveConfig
from weber.data.seeds import draw_uniform
from weber.objective.timesteps import LAWS, build_timesteps, shift_timesteps

NORMAL = torch.tensor([-2.5, -0.7, 0.0, 0.3, 1.9], dtype=torch.float64)
UNIFORM = torch.special.ndtr(NORMAL)
NUM_DRAWS = 100_000
TOKEN_SHIFT = math.exp(0.5)
Numbers = NDArray[np.float64]
Cumulative = Callable[[Numbers], Numbers]


def _normal(z: Numbers) -> Numbers:
    numbers: Numbers = 0.5 * (1 + torch.erf(torch.from_numpy(z / math.sqrt(2))).numpy())
    return numbers


def _logit(x: Numbers) -> Numbers:
    return np.log(x / (1 - x))


def _unshift(k: float, inner: Cumulative) -> Cumulative:
    return lambda x: inner(x / (k - (k - 1) * x))


def _mode(x: Numbers) -> Numbers:
    """P(t <= x) of eq. 20 with s = 1.29: t falls with u, so 1 - u where t(u) = x, found by bisection."""
    low, high = np.zeros_like(x), np.ones_like(x)
    for _ in range(60):
        u = (low + high) / 2
        is_above = 1 - u - 1.29 * (np.cos(np.pi * u / 2) ** 2 - 1 + u) > x
        low, high = np.where(is_above, u, low), np.where(is_above, high, u)
    return 1 - low


# settings, and P(t <= x) by hand
LAWS_BY_HAND: dict[str, tuple[ObjectiveConfig, Cumulative]] = {
    "uniform": (ObjectiveConfig(timesteps="uniform"), lambda x: x),
    "sigmoid": (ObjectiveConfig(timesteps="sigmoid"), lambda x: _normal(_logit(x))),
    "narrow sigmoid": (ObjectiveConfig(timesteps="sigmoid", sigmoid_scale=0.5), lambda x: _normal(_logit(x) / 0.5)),
    "moved sigmoid": (
        ObjectiveConfig(timesteps="sigmoid", sigmoid_scale=2.0, sigmoid_offset=0.6),
        lambda x: _normal(_logit(x) / 2.0 - 0.6),
    ),
    "logit normal": (
        ObjectiveConfig(timesteps="logit_normal", logit_mean=-0.5, logit_std=0.8),
        lambda x: _normal((_logit(x) + 0.5) / 0.8),
    ),
    "mode": (ObjectiveConfig(timesteps="mode"), _mode),
    "cosmap": (ObjectiveConfig(timesteps="cosmap"), lambda x: 2 / np.pi * np.arctan(x / (1 - x))),
    "beta 2 3": (ObjectiveConfig(timesteps="beta", beta_shape=(2.0, 3.0)), lambda x: 6 * x**2 - 8 * x**3 + 3 * x**4),
    "beta 1/2 1/2": (ObjectiveConfig(timesteps="beta", beta_shape=(0.5, 0.5)), lambda x: 2 / np.pi * np.arcsin(np.sqrt(x))),
    "falling line": (ObjectiveConfig(timesteps="cubic", cubic_weights=[3.0, 1.0]), lambda x: (3 * x - x**2) / 2),
    "tent": (
        ObjectiveConfig(timesteps="cubic", cubic_weights=[0.0, 1.0, 0.0]),
        # slopes by hand: (3 - -1) / 2 = 2 per half at both ends and 0 at the top: 2 s - s^2 with s = 2 x
        lambda x: np.where(x < 0.5, _tent(2 * x), 1 - _tent(2 * (1 - x))),
    ),
    "shift": (ObjectiveConfig(timesteps="shift", shift=3.1582), _unshift(3.1582, lambda x: _normal(_logit(x)))),
    "shift down": (
        ObjectiveConfig(timesteps="shift", shift=0.4, sigmoid_scale=1.3),
        _unshift(0.4, lambda x: _normal(_logit(x) / 1.3)),
    ),
    "fine detail": (ObjectiveConfig(timesteps="uniform", shift=0.1), _unshift(0.1, lambda x: x)),
    "token_shift": (ObjectiveConfig(timesteps="token_shift"), _unshift(TOKEN_SHIFT, lambda x: _normal(_logit(x)))),
    "uniform by tokens": (ObjectiveConfig(timesteps="uniform", shift="tokens"), _unshift(TOKEN_SHIFT, lambda x: x)),
}


def _tent(s: Numbers) -> Numbers:
    numbers: Numbers = 0.75 * s**2 - 0.25 * s**3
    return numbers


def _apply(config: ObjectiveConfig) -> list[float]:
    assert config.timesteps is not None
    numbers: list[float] = LAWS[config.timesteps](UNIFORM, config).tolist()
    return numbers


def _logistic(x: float) -> float:
    return 1 / (1 + math.exp(-x))


def test_uniform_is_the_draw() -> None:
    assert _apply(ObjectiveConfig(timesteps="uniform")) == UNIFORM.tolist()


@pytest.mark.parametrize(("scale", "offset"), [(0.3, 0.0), (1.0, 0.0), (2.0, -0.4)])
def test_sigmoid(scale: float, offset: float) -> None:
    config = ObjectiveConfig(timesteps="sigmoid", sigmoid_scale=scale, sigmoid_offset=offset)
    assert _apply(config) == pytest.approx([_logistic(scale * (z + offset)) for z in NORMAL.tolist()], rel=1e-12)


def test_logit_normal() -> None:
    config = ObjectiveConfig(timesteps="logit_normal", logit_mean=0.7, logit_std=1.5)
    assert _apply(config) == pytest.approx([_logistic(0.7 + 1.5 * z) for z in NORMAL.tolist()], rel=1e-12)


@pytest.mark.parametrize("scale", [-1.0, 1.29, 1.75])
def test_mode(scale: float) -> None:
    expected = [1 - u - scale * (math.cos(math.pi * u / 2) ** 2 - 1 + u) for u in UNIFORM.tolist()]
    assert _apply(ObjectiveConfig(timesteps="mode", mode_scale=scale)) == pytest.approx(expected, rel=1e-12)


def test_cosmap() -> None:
    expected = [1 - 1 / (math.tan(math.pi * u / 2) + 1) for u in UNIFORM.tolist()]
    assert _apply(ObjectiveConfig(timesteps="cosmap")) == pytest.approx(expected, rel=1e-12)


@pytest.mark.parametrize("a", [0.1, 0.5, 1.0, 3.0, 100.0])
def test_beta_equals_its_closed_forms(a: float) -> None:
    rising, falling = (ObjectiveConfig(timesteps="beta", beta_shape=shape) for shape in ((a, 1.0), (1.0, a)))
    assert _apply(rising) == pytest.approx([u ** (1 / a) for u in UNIFORM.tolist()], abs=1e-7)
    assert _apply(falling) == pytest.approx([1 - (1 - u) ** (1 / a) for u in UNIFORM.tolist()], abs=1e-7)


def test_beta_of_equal_parameters_is_symmetric_and_as_narrow_as_it_should_be() -> None:
    t = torch.tensor(_apply(ObjectiveConfig(timesteps="beta", beta_shape=(4e4, 4e4))), dtype=torch.float64)
    deviation = math.sqrt(1 / (4 * (8e4 + 1)))  # nearly normal
    assert torch.allclose((t - 0.5) / deviation, NORMAL, atol=1e-3)


def test_cubic_of_one_is_uniform_and_of_two_a_line() -> None:
    assert _apply(ObjectiveConfig(timesteps="cubic", cubic_weights=[7.0])) == pytest.approx(UNIFORM.tolist(), rel=1e-12)
    rising, falling = (_apply(ObjectiveConfig(timesteps="cubic", cubic_weights=weights)) for weights in ([0.0, 2.0], [1.0, 0.0]))
    assert rising == pytest.approx([math.sqrt(u) for u in UNIFORM.tolist()], rel=1e-12)
    assert falling == pytest.approx([1 - math.sqrt(1 - u) for u in UNIFORM.tolist()], rel=1e-12)


def test_cubic_draws_nothing_where_the_density_is_zero() -> None:
    config = ObjectiveConfig(timesteps="cubic", cubic_weights=[0.0, 0.0, 1.0, 0.0, 0.0])
    t = build_timesteps(config, [2**-53, *UNIFORM.tolist(), 1 - 2**-53], token_shift=1.0)
    assert 0.25 <= t.min() <= t.max() <= 0.75
    assert t[3].item() == pytest.approx(0.5)


@pytest.mark.parametrize("law", ["uniform", "sigmoid", "logit_normal", "mode", "cosmap", "beta"])
@pytest.mark.parametrize("k", [0.1, 3.0])
def test_every_law_is_shifted_behind_the_draw(law: str, k: float) -> None:
    plain = build_timesteps(ObjectiveConfig(timesteps=law), UNIFORM.tolist(), token_shift=5.0).double()
    shifted = build_timesteps(ObjectiveConfig(timesteps=law, shift=k), UNIFORM.tolist(), token_shift=5.0)
    by_tokens = build_timesteps(ObjectiveConfig(timesteps=law, shift="tokens"), UNIFORM.tolist(), token_shift=k)
    assert torch.equal(shifted, by_tokens)
    assert torch.allclose(shifted.double(), k * plain / (1 + (k - 1) * plain), atol=1e-6)


@pytest.mark.parametrize(("shift", "scale"), [(3.0, 1.0), (1.0, 1.0), (0.5, 2.0)])
def test_the_law_named_shift_is_a_shifted_sigmoid(shift: float, scale: float) -> None:
    one, other = (ObjectiveConfig(timesteps=law, shift=shift, sigmoid_scale=scale) for law in ("shift", "sigmoid"))
    u = [_logistic(scale * z) for z in NORMAL.tolist()]
    t = build_timesteps(one, UNIFORM.tolist(), token_shift=5.0)
    assert t.tolist() == pytest.approx([shift * one / (1 + (shift - 1) * one) for one in u], rel=1e-6)
    assert torch.equal(t, build_timesteps(other, UNIFORM.tolist(), token_shift=5.0))


@pytest.mark.parametrize("mu", [0.5, 1.15])
def test_token_shift_is_the_form_of_kohya(mu: float) -> None:
    u = [_logistic(z) for z in NORMAL.tolist()]
    expected = [math.exp(mu) / (math.exp(mu) + (1 / one - 1)) for one in u]
    t = build_timesteps(ObjectiveConfig(timesteps="token_shift"), UNIFORM.tolist(), token_shift=math.exp(mu))
    assert t.tolist() == pytest.approx(expected, rel=1e-6)


@pytest.mark.parametrize("name", LAWS_BY_HAND)
def test_extreme_draws_stay_in_range(name: str) -> None:
    t = build_timesteps(LAWS_BY_HAND[name][0], [2**-53, 1 - 2**-53], token_shift=25.0).sort().values
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


def test_a_list_is_drawn_evenly_and_cycled_exactly() -> None:
    levels = [1.0, 0.6, 0.2, 0.0, 0.6]
    config = ObjectiveConfig(timesteps="list", timestep_list=levels)
    cycled = build_timesteps(config, [(turn % 5 + 0.5) / 5 for turn in range(10)], token_shift=3.0)
    assert cycled.tolist() == pytest.approx(2 * levels)
    t = build_timesteps(config, [draw_uniform(0, number) for number in range(NUM_DRAWS)], token_shift=3.0)
    _, counts = t.unique(return_counts=True)
    assert (counts / NUM_DRAWS).tolist() == pytest.approx([0.2, 0.2, 0.4, 0.2], abs=0.01)


@given(t=st.floats(0, 1), k=st.floats(0.01, 100))
def test_shift_keeps_the_ends_and_is_undone_by_its_inverse(t: float, k: float) -> None:
    shifted = shift_timesteps(torch.tensor([0.0, t, 1.0], dtype=torch.float64), k)
    assert (shifted[0], shifted[2]) == (0.0, pytest.approx(1.0, abs=1e-12))
    assert (shifted[1] >= t - 1e-12) if k >= 1 else (shifted[1] <= t + 1e-12)
    assert shift_timesteps(shifted, 1 / k)[1].item() == pytest.approx(t, abs=1e-9)


@pytest.fixture(scope="module")
def uniforms() -> list[float]:
    return [draw_uniform(0, number, "timestep") for number in range(NUM_DRAWS)]


def read_distance(t: torch.Tensor, cumulative: Cumulative) -> float:
    """Kolmogorov-Smirnov: the largest distance between two distribution functions."""
    x, steps = np.sort(t.double().numpy()).clip(1e-12, 1 - 1e-12), np.arange(len(t) + 1) / len(t)
    expected = cumulative(x)
    return float(max(np.abs(expected - steps[:-1]).max(), np.abs(expected - steps[1:]).max()))


@pytest.mark.parametrize("name", LAWS_BY_HAND)
def test_distribution(name: str, uniforms: list[float]) -> None:
    """The distance is below 1.95 / sqrt(n) with probability 0.999."""
    t = build_timesteps(LAWS_BY_HAND[name][0], uniforms, token_shift=TOKEN_SHIFT)
    assert (t.dtype, t.shape) == (torch.float32, (NUM_DRAWS,))
    assert 0 < t.min() < t.max() <= 1
    distances = {other: read_distance(t, cumulative) for other, (_, cumulative) in LAWS_BY_HAND.items()}
    assert distances.pop(name) < 1.95 / math.sqrt(NUM_DRAWS)
    assert min(distances.values()) > 2 * 1.95 / math.sqrt(NUM_DRAWS), "the test would not tell this law from another"


def test_a_sample_does_not_depend_on_its_batch() -> None:
    uniforms = [draw_uniform(1, place) for place in range(4)]
    for config, _ in LAWS_BY_HAND.values():
        together = build_timesteps(config, uniforms, token_shift=1.0)
        assert torch.equal(together, torch.cat([build_timesteps(config, [one], token_shift=1.0) for one in uniforms]))
        assert len(set(together.tolist())) == 4
