"""Euler steps on velocities whose course is known."""

from __future__ import annotations

from collections.abc import Mapping

import pytest
import torch
from torch import Tensor

from weber.sampling.euler import Painting, draw_start, predict_latents

CPU = torch.device("cpu")


def _start(batch: int = 2) -> Tensor:
    return torch.randn(batch, 4, 6, 8, generator=torch.Generator().manual_seed(0))


def _even(num_steps: int) -> list[float]:
    return [1 - step / num_steps for step in range(num_steps + 1)]


@pytest.mark.parametrize("sigmas", [[1.0, 0.0], [1.0, 0.5, 0.0], [1.0, 0.9375, 0.125, 0.0]])
def test_a_straight_line_is_followed_exactly(sigmas: list[float]) -> None:
    """velocity = noise - x0 everywhere, as the objective asks: any number of steps arrives at x0."""
    noise, x0 = _start().round(decimals=0), 3 * torch.ones(2, 4, 6, 8)
    assert torch.equal(predict_latents(lambda *_: noise - x0, noise, sigmas, {}), x0)


@pytest.mark.parametrize("num_steps", [1, 7, 50])
def test_a_constant_velocity(num_steps: int) -> None:
    velocity = torch.full((2, 4, 6, 8), 0.37)
    end = predict_latents(lambda *_: velocity, _start(), _even(num_steps), {})
    assert torch.allclose(end, _start() - velocity, rtol=0, atol=1e-5)


def test_the_equation_of_growth() -> None:
    """dx/dt = x: Euler multiplies by (1 - 1/n) n times and nears e^-1 like 1/n."""
    ends = {}
    for num_steps in (10, 100):
        ratio = predict_latents(lambda x, t, _: x, _start(), _even(num_steps), {}) / _start()
        assert torch.allclose(ratio, torch.full_like(ratio, (1 - 1 / num_steps) ** num_steps), rtol=1e-4)
        ends[num_steps] = abs(ratio.mean().item() - torch.tensor(-1.0).exp().item())
    assert 8 < ends[10] / ends[100] < 12


def test_the_network_is_asked_at_every_sigma_but_the_last() -> None:
    sigmas, seen = [1.0, 0.75, 0.3, 0.0], []
    given = {"text": torch.ones(1)}

    def predict(latents: Tensor, t: Tensor, condition: Mapping[str, Tensor]) -> Tensor:
        assert condition is given
        assert not torch.is_grad_enabled()
        assert (t.dtype, t.shape) == (torch.float32, (2,))
        seen.append(t)
        return torch.zeros_like(latents)

    start = _start()
    assert torch.equal(predict_latents(predict, start, sigmas, given), start)
    assert torch.equal(torch.stack(seen), torch.tensor(sigmas[:-1])[:, None].expand(3, 2))


def test_the_sum_is_kept_in_fp32() -> None:
    """1000 steps of 1/1000 would stand still if the latents were bf16."""
    velocity = torch.ones(1, 1, 2, 2, dtype=torch.bfloat16)
    end = predict_latents(lambda *_: velocity, torch.full((1, 1, 2, 2), 100.0), _even(1000), {})
    assert end.dtype == torch.float32
    assert end.mean().item() == pytest.approx(99.0, abs=0.01)


def test_start_is_noise_of_the_seed() -> None:
    one, same, other = (draw_start(Painting((16, 8, 10), seed, {}), CPU) for seed in (3, 3, 4))
    assert one.shape == (1, 16, 8, 10)
    assert torch.equal(one, same)
    assert not torch.equal(one, other)
    assert torch.equal(one, torch.randn(1, 16, 8, 10, generator=torch.Generator().manual_seed(3)))
