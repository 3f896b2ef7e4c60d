"""Distances, weights and masks against written-out references, number by number."""

from __future__ import annotations

import math
from typing import get_args

import pytest
import torch
from torch import Tensor

from weber.config.objective import ObjectiveConfig
from weber.objective.losses import DISTANCES, WEIGHTINGS, build_huber_c, build_losses

T = torch.tensor([0.0, 0.1, 0.5, 1.0])
ERRORS = [0.0, 1e-6, -0.03, 0.2, -1.5, 40.0]


def _draw(*, seed: int = 0, requires_grad: bool = False) -> tuple[Tensor, Tensor]:
    generator = torch.Generator().manual_seed(seed)
    velocity, target = (torch.randn(4, 3, 4, 6, generator=generator) for _ in range(2))
    return velocity.requires_grad_(requires_grad), target


def _build_error_losses(config: ObjectiveConfig, t: float) -> list[float]:
    """The loss of each error alone."""
    velocity = torch.tensor(ERRORS).view(-1, 1, 1, 1)
    losses: list[float] = build_losses(velocity, torch.zeros_like(velocity), torch.full((len(ERRORS),), t), config=config).tolist()
    return losses


def test_every_choice_of_the_config_is_here() -> None:
    fields = ObjectiveConfig.model_fields
    assert set(DISTANCES) == set(get_args(fields["loss"].annotation))
    assert set(WEIGHTINGS) == set(get_args(fields["weighting"].annotation))


def test_l2_is_the_mean_of_squares_bit_for_bit() -> None:
    velocity, target = _draw()
    losses = build_losses(velocity.bfloat16(), target, T, config=ObjectiveConfig())
    assert losses.dtype == torch.float32
    assert torch.equal(losses, (velocity.bfloat16().float() - target).square().mean(dim=(1, 2, 3)))


def test_l1() -> None:
    assert _build_error_losses(ObjectiveConfig(loss="l1"), 0.3) == pytest.approx([abs(d) for d in ERRORS], rel=1e-6)


@pytest.mark.parametrize("schedule", ["constant", "exponential"])
@pytest.mark.parametrize("t", [0.0, 0.3, 1.0])
def test_huber_and_smooth_l1_are_those_of_kohya(schedule: str, t: float) -> None:
    c = 0.2 if schedule == "constant" else math.exp(-(-math.log(0.2) / 1000) * 1000 * t)
    huber, smooth = (ObjectiveConfig(loss=loss, huber_c=0.2, huber_schedule=schedule) for loss in ("huber", "smooth_l1"))
    roots = [math.sqrt(d * d + c * c) - c for d in ERRORS]
    assert _build_error_losses(huber, t) == pytest.approx([2 * c * root for root in roots], rel=1e-3)
    assert _build_error_losses(smooth, t) == pytest.approx([2 * root for root in roots], rel=1e-3)
    assert _build_error_losses(huber, t)[1] == pytest.approx(1e-12, rel=1e-5), "small errors keep their digits"


def test_huber_c_goes_from_one_at_the_picture_to_what_is_set_at_pure_noise() -> None:
    config = ObjectiveConfig(loss="huber", huber_c=0.01, huber_schedule="exponential")
    assert build_huber_c(T, config).tolist() == pytest.approx([1.0, 0.01**0.1, 0.1, 0.01])


def test_weights_of_noise_levels() -> None:
    velocity, target = _draw()
    plain, sigma, cosmap = (build_losses(velocity, target, T, config=ObjectiveConfig(weighting=one)) for one in WEIGHTINGS)
    assert (sigma / plain).tolist() == pytest.approx([1e6, 100.0, 4.0, 1.0])
    assert (cosmap / plain).tolist() == pytest.approx([2 / (math.pi * (1 - 2 * t + 2 * t * t)) for t in T.tolist()])


@pytest.mark.parametrize("mean", ["mask", "picture"])
@pytest.mark.parametrize("minimum", [0.0, 0.25])
@pytest.mark.parametrize("loss", DISTANCES)
def test_masks(mean: str, minimum: float, loss: str) -> None:
    velocity, target = _draw()
    mask = torch.rand(4, 1, 4, 6, generator=torch.Generator().manual_seed(1))
    mask[1], mask[2] = 1.0, 0.0
    config = ObjectiveConfig(loss=loss, mask_mean=mean, mask_minimum=minimum, weighting="cosmap")
    losses = build_losses(velocity, target, T, config=config, mask_B1HW=mask)
    for sample in range(4):
        total, area = 0.0, 0.0
        for channel in range(3):
            for y in range(4):
                for x in range(6):
                    d = float(velocity[sample, channel, y, x] - target[sample, channel, y, x])
                    root = math.sqrt(d * d + 0.01) - 0.1
                    weight = minimum + (1 - minimum) * float(mask[sample, 0, y, x])
                    total += weight * {"l2": d * d, "l1": abs(d), "huber": 0.2 * root, "smooth_l1": 2 * root}[loss]
                    area += weight
        t = float(T[sample])
        expected = total / ((area or 1.0) if mean == "mask" else 72) * 2 / (math.pi * (1 - 2 * t + 2 * t * t))
        assert float(losses[sample]) == pytest.approx(expected, rel=1e-5, abs=1e-12)


@pytest.mark.parametrize("loss", DISTANCES)
@pytest.mark.parametrize("weighting", WEIGHTINGS)
@pytest.mark.parametrize("mean", ["mask", "picture"])
def test_what_is_masked_out_has_no_gradient_at_all(loss: str, weighting: str, mean: str) -> None:
    velocity, target = _draw(requires_grad=True)
    mask = (torch.rand(4, 1, 4, 6, generator=torch.Generator().manual_seed(1)) > 0.5).float()
    mask[2] = 0.0
    config = ObjectiveConfig(loss=loss, weighting=weighting, mask_mean=mean)
    losses = build_losses(velocity, target, T, config=config, mask_B1HW=mask)
    losses.sum().backward()  # type: ignore[no-untyped-call]
    assert losses[2] == 0
    assert velocity.grad is not None and torch.isfinite(velocity.grad).all()
    assert torch.equal(velocity.grad != 0, (mask > 0).expand_as(velocity))


@pytest.mark.parametrize("mean", ["mask", "picture"])
def test_a_white_mask_changes_nothing(mean: str) -> None:
    velocity, target = _draw()
    config = ObjectiveConfig(mask_mean=mean, mask_minimum=0.3)
    masked = build_losses(velocity, target, T, config=config, mask_B1HW=torch.ones(4, 1, 4, 6))
    assert torch.allclose(masked, build_losses(velocity, target, T, config=config), rtol=1e-6)
