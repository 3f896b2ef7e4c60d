"""Courses of the learning rate: values at the marked places, and only ever down after the warm-up."""

from __future__ import annotations

import math
from typing import Any

import pytest
import torch
from diffusers.optimization import get_scheduler
from hypothesis import given
from hypothesis import strategies as st

from weber.config.optim import OptimConfig
from weber.optim.schedules import COURSES, build_schedule, write_learning_rate

NUM_STEPS = 100
FALLING = sorted(set(COURSES) - {"cosine_with_restarts"})


def _list_rates(num_steps: int = NUM_STEPS, **settings: Any) -> list[float]:
    """Rates of every step, and of the step that would follow the last."""
    rate = build_schedule(OptimConfig(**settings), num_steps=num_steps)
    return [rate(step) for step in range(num_steps + 1)]


def test_every_schedule_of_the_config_is_here() -> None:
    assert set(COURSES) == set(OptimConfig.model_fields["schedule"].annotation.__args__)


@pytest.mark.parametrize(
    ("settings", "quarter", "middle", "end"),
    [
        ({"schedule": "constant"}, 1.0, 1.0, 1.0),
        ({"schedule": "linear"}, 0.75, 0.5, 0.0),
        ({"schedule": "linear", "end_lr": 2e-4}, 0.8, 0.6, 0.2),
        ({"schedule": "cosine"}, 0.5 * (1 + math.cos(math.pi / 4)), 0.5, 0.0),
        ({"schedule": "cosine", "end_lr": 5e-4}, 0.5 + 0.25 * (1 + math.cos(math.pi / 4)), 0.75, 0.5),
        ({"schedule": "polynomial"}, 0.75, 0.5, 0.0),
        ({"schedule": "polynomial", "power": 2.0}, 0.5625, 0.25, 0.0),
        ({"schedule": "polynomial", "power": 0.5, "end_lr": 1e-4}, 0.1 + 0.9 * 0.75**0.5, 0.1 + 0.9 * 0.5**0.5, 0.1),
    ],
)
def test_values(settings: dict[str, Any], quarter: float, middle: float, end: float) -> None:
    rates = _list_rates(lr=1e-3, **settings)
    assert rates[0] == 1e-3
    assert [rate / 1e-3 for rate in (rates[25], rates[50], rates[100])] == pytest.approx([quarter, middle, end], abs=1e-12)


@pytest.mark.parametrize("schedule", FALLING)
def test_warm_up(schedule: str) -> None:
    rates = _list_rates(lr=1e-3, schedule=schedule, warmup_steps=20)
    assert rates[:20] == pytest.approx([1e-3 * (step + 1) / 20 for step in range(20)])
    assert rates[19] == rates[20] == 1e-3
    assert rates[60] == pytest.approx(1e-3 if schedule == "constant" else 5e-4)
    assert rates[100] == pytest.approx(1e-3 if schedule == "constant" else 0.0, abs=1e-15)


@pytest.mark.parametrize("schedule", COURSES)
@pytest.mark.parametrize(("num_steps", "warmup_steps"), [(1, 0), (2, 0), (2, 1), (5, 4)])
def test_short_runs(schedule: str, num_steps: int, warmup_steps: int) -> None:
    rates = _list_rates(num_steps, lr=1e-3, schedule=schedule, warmup_steps=warmup_steps)
    assert rates[max(warmup_steps - 1, 0)] == 1e-3
    assert all(0 <= rate <= 1e-3 for rate in rates)


@given(
    schedule=st.sampled_from(FALLING),
    num_steps=st.integers(1, 300),
    warmup_share=st.floats(0, 0.99),
    lr=st.floats(1e-7, 1.0),
    end_share=st.floats(0, 1),
    power=st.floats(0.1, 5),
)
def test_up_to_lr_then_never_up(schedule: str, num_steps: int, warmup_share: float, lr: float, end_share: float, power: float) -> None:
    warmup_steps = int(warmup_share * num_steps)
    settings: dict[str, Any] = {"lr": lr, "schedule": schedule, "warmup_steps": warmup_steps}
    settings |= {} if schedule == "constant" else {"end_lr": lr * end_share}
    settings |= {"power": power} if schedule == "polynomial" else {}
    rates = _list_rates(num_steps, **settings)
    rising, falling = rates[:warmup_steps], rates[warmup_steps:]
    tolerance = 1e-12 * lr
    assert all(before < after for before, after in zip(rising[:-1], rising[1:], strict=True))
    assert all(before + tolerance >= after for before, after in zip(falling[:-1], falling[1:], strict=True))
    assert max(rates) == pytest.approx(lr)
    assert min(rates[:-1]) > 0, "a step at rate 0 would be wasted"
    assert all(rate >= settings.get("end_lr", lr) - tolerance for rate in falling)
    if num_steps > warmup_steps:
        assert rates[-1] == pytest.approx(settings.get("end_lr", lr), rel=1e-9, abs=tolerance)


@pytest.mark.parametrize("name", ["linear", "cosine", "polynomial"])
def test_the_fall_is_that_of_the_library(name: str) -> None:
    optimizer = torch.optim.SGD([torch.nn.Parameter(torch.zeros(1))], lr=1e-3)
    theirs = get_scheduler(name, optimizer, num_warmup_steps=0, num_training_steps=NUM_STEPS)
    end = 1e-7 if name == "polynomial" else 0.0  # the library's fixed end of its polynomial
    for rate in _list_rates(lr=1e-3, schedule=name, end_lr=end):
        assert rate == pytest.approx(theirs.get_last_lr()[0], rel=1e-6, abs=1e-12)
        optimizer.step()
        theirs.step()


@pytest.mark.parametrize("cycles", [None, 2, 5])
def test_restarts_are_those_of_the_library(cycles: int | None) -> None:
    optimizer = torch.optim.SGD([torch.nn.Parameter(torch.zeros(1))], lr=1e-3)
    name, num = "cosine_with_restarts", 2 if cycles is None else cycles
    theirs = get_scheduler(name, optimizer, num_warmup_steps=20, num_training_steps=120, num_cycles=num)
    rates = _list_rates(120, lr=1e-3, schedule=name, warmup_steps=20, **({} if cycles is None else {"cycles": cycles}))
    assert [step for step in range(20, 120) if rates[step] == 1e-3] == [20 + 100 * number // num for number in range(num)]
    for step in range(120):
        if step >= 20:  # their warm-up begins with a step at a rate of 0
            assert rates[step] == pytest.approx(theirs.get_last_lr()[0], rel=1e-6, abs=1e-12)
        optimizer.step()
        theirs.step()
    assert rates[120] == 0


def test_groups_have_rates_of_their_own() -> None:
    one, two = torch.nn.Parameter(torch.zeros(1)), torch.nn.Parameter(torch.zeros(1))
    groups = [{"params": [one], "rate": 0.5}, {"params": [two], "rate": 2.0, "lr": torch.tensor(1.0)}]
    optimizer = torch.optim.SGD(groups, lr=1.0)
    kept = optimizer.param_groups[1]["lr"]
    write_learning_rate(optimizer, 0.25)
    assert (optimizer.param_groups[0]["lr"], kept.item()) == (0.125, 0.5)
    one.grad = two.grad = torch.ones(1)
    optimizer.step()
    assert (one.item(), two.item()) == (-0.125, -0.5)


def test_the_rate_reaches_every_group_of_the_optimizer() -> None:
    one, two = torch.nn.Parameter(torch.zeros(1)), torch.nn.Parameter(torch.zeros(1))
    optimizer = torch.optim.SGD([{"params": [one]}, {"params": [two], "lr": 5.0}], lr=1.0)
    write_learning_rate(optimizer, 0.25)
    one.grad = two.grad = torch.ones(1)
    optimizer.step()
    assert (one.item(), two.item()) == (-0.25, -0.25)
