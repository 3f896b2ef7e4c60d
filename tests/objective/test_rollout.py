"""Scheduled sampling on networks whose steps can be written out."""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping

import pytest
import torch
from torch import Tensor

from weber.config.objective import RolloutConfig
from weber.data.seeds import draw_uniform
from weber.objective.flow import build_noisy
from weber.objective.rollout import build_probability, build_return, draw_num_steps, predict_rollout


def _draw(num: int) -> tuple[Tensor, Tensor]:
    generator = torch.Generator().manual_seed(0)
    latents, noise = (torch.randn(num, 2, 4, 4, generator=generator) for _ in range(2))
    return latents, noise


def test_a_network_that_knows_the_line_stays_on_it() -> None:
    latents, noise = _draw(4)
    t = torch.tensor([0.05, 0.3, 0.9, 0.5])
    condition = {"line": noise - latents}
    x = predict_rollout(
        lambda x, t, told: told["line"], latents, noise, t, condition=condition, num_steps=[1, 3, 2, 0], step_size=0.05
    )
    assert torch.allclose(x, build_noisy(latents, noise, t), atol=1e-6)
    assert torch.allclose(build_return(x, latents, t), noise - latents, atol=1e-4)


def test_the_steps_are_those_of_euler_written_out() -> None:
    """Two steps of a network that answers a x + t, from t + 2 x 0.1, and one where noise is nearer than two steps."""
    latents, noise = _draw(3)
    t = torch.tensor([0.3, 0.95, 0.4])
    asked: list[list[float]] = []

    def predict(x: Tensor, t_B: Tensor, told: Mapping[str, Tensor]) -> Tensor:
        asked.append([round(one, 4) for one in t_B.tolist()])
        return told["a"].view(-1, 1, 1, 1) * x + t_B.view(-1, 1, 1, 1)

    condition = {"a": torch.tensor([0.5, -1.0, 2.0])}
    x = predict_rollout(predict, latents, noise, t, condition=condition, num_steps=[2, 2, 0], step_size=0.1)
    assert asked == [[0.5, 1.0], [0.4, 0.975]]
    first = 0.5 * latents[0] + 0.5 * noise[0]
    first = first - 0.1 * (0.5 * first + 0.5)
    first = first - 0.1 * (0.5 * first + 0.4)
    assert torch.allclose(x[0], first, atol=1e-6)
    second = noise[1]
    second = second - 0.025 * (-second + 1.0)
    second = second - 0.025 * (-second + 0.975)
    assert torch.allclose(x[1], second, atol=1e-6)
    assert torch.equal(x[2], build_noisy(latents, noise, t)[2])


def test_no_sample_depends_on_the_steps_of_another() -> None:
    latents, noise = _draw(4)
    t, num_steps = torch.tensor([0.2, 0.4, 0.6, 0.8]), [3, 0, 1, 2]

    def predict(x: Tensor, t_B: Tensor, told: Mapping[str, Tensor]) -> Tensor:
        return torch.sin(x) + t_B.view(-1, 1, 1, 1)

    together = predict_rollout(predict, latents, noise, t, condition={}, num_steps=num_steps, step_size=0.07)
    for place in range(4):
        one = slice(place, place + 1)
        alone = predict_rollout(predict, latents[one], noise[one], t[one], condition={}, num_steps=num_steps[one], step_size=0.07)
        assert torch.equal(alone, together[one])


def test_there_is_no_gradient_through_the_steps() -> None:
    latents, noise = _draw(1)
    weight = torch.ones(1, requires_grad=True)
    x = predict_rollout(lambda x, t, told: weight * x, latents, noise, torch.tensor([0.5]), condition={}, num_steps=[2], step_size=0.1)
    assert not x.requires_grad


@pytest.mark.parametrize(
    ("ramp", "expected"), [("linear", [0, 0, 0.1, 0.25, 0.4, 0.7, 0.7]), ("cosine", [0, 0, 0.1, 0.1 + 0.6 * 0.146447, 0.4, 0.7, 0.7])]
)
def test_the_ramp(ramp: str, expected: list[float]) -> None:
    config = RolloutConfig(probability=0.7, start_probability=0.1, start_step=10, ramp_steps=8, ramp=ramp)
    assert [build_probability(config, step) for step in (0, 9, 10, 12, 14, 18, 100)] == pytest.approx(expected, abs=1e-6)


def test_without_a_ramp_the_share_is_there_at_once() -> None:
    config = RolloutConfig(probability=0.7, start_step=3)
    assert [build_probability(config, step) for step in (2, 3)] == [0.0, 0.7]


@pytest.mark.parametrize(
    ("strategy", "shares"),
    [("uniform", [0.25] * 4), ("early", [7 / 16, 5 / 16, 3 / 16, 1 / 16]), ("late", [1 / 16, 3 / 16, 5 / 16, 7 / 16])],
)
def test_how_many_steps(strategy: str, shares: list[float]) -> None:
    config = RolloutConfig(max_steps=4, strategy=strategy)
    counts = Counter(draw_num_steps(config, draw_uniform(0, number)) for number in range(20_000))
    assert [counts[number] / 20_000 for number in (1, 2, 3, 4)] == pytest.approx(shares, abs=0.015)
    assert set(counts) == {1, 2, 3, 4}
    assert [draw_num_steps(config, one) for one in (2**-53, 1 - 2**-53)] == [1, 4]
