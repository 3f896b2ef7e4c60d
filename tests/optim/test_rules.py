"""Update rules against the library's optimizers and against formulas written out."""

from __future__ import annotations

import pytest
import torch
from torch import nn

from tests.optim.conftest import Named, build_parameters, build_stepper, draw_gradient, train


def _measure(ours: Named, theirs: Named) -> float:
    return max((one - other).abs().max().item() for (_, one), (_, other) in zip(ours, theirs, strict=True))


def _moved(parameters: Named) -> float:
    return min((one - start).abs().mean().item() for (_, one), (_, start) in zip(parameters, build_parameters(), strict=True))


@pytest.mark.parametrize("weight_decay", [0.0, 0.1])
def test_adamw_is_that_of_the_library(weight_decay: float) -> None:
    settings = {"lr": 1e-3, "betas": (0.8, 0.95), "eps": 1e-6, "weight_decay": weight_decay}
    ours, theirs = build_parameters(), build_parameters()
    train(build_stepper(ours, "adamw", **settings), ours, start=0, stop=50)
    train(torch.optim.AdamW([one for _, one in theirs], foreach=False, **settings), theirs, start=0, stop=50)
    assert _moved(ours) > 0.01
    assert _measure(ours, theirs) < 1e-6


@pytest.mark.parametrize("weight_decay", [0.0, 0.1])
def test_adafactor_is_that_of_the_library_with_a_given_learning_rate(weight_decay: float) -> None:
    """Theirs is relative to max(eps2, root mean square of the parameter) and at most 1 / sqrt(t); with eps2 = 2 and lr / 2 it is ours."""
    ours, theirs = build_parameters(), build_parameters()
    train(build_stepper(ours, "adafactor", eps=1e-8, weight_decay=weight_decay), ours, start=0, stop=50)
    library = torch.optim.Adafactor([one for _, one in theirs], lr=5e-4, eps=(1e-8, 2.0), d=1.0, weight_decay=2 * weight_decay)
    train(library, theirs, start=0, stop=50)
    assert _moved(ours) > 0.005
    assert _measure(ours, theirs) < 2e-6


def test_adafactor_clips_a_sudden_update() -> None:
    """A gradient 100 times larger than all before makes a direction with a root mean square above 1, which is cut to 1."""
    weight = nn.Parameter(torch.zeros(32, 16))
    stepper = build_stepper([("weight", weight)], "adafactor", lr=1e-2, weight_decay=0.0)
    for step in range(30):
        before = weight.detach().clone()
        weight.grad = draw_gradient(weight, step, 0) * (100 if step == 29 else 1)
        stepper.step()
    assert (weight - before).square().mean().sqrt().item() == pytest.approx(1e-2, rel=1e-4)


def test_adafactor_treats_further_dimensions_as_columns() -> None:
    kernel, matrix = nn.Parameter(torch.ones(8, 3, 2, 2)), nn.Parameter(torch.ones(8, 12))
    for weight in (kernel, matrix):
        stepper = build_stepper([("weight", weight)], "adafactor")
        for step in range(3):
            weight.grad = draw_gradient(matrix, step, 0).view(weight.shape)
            stepper.step()
    assert torch.equal(kernel.view(8, 12), matrix)


def test_lion_is_the_formula_of_the_paper() -> None:
    beta1, beta2, lr, decay = 0.9, 0.99, 1e-3, 0.1
    ours, theirs = build_parameters(), [one.detach().double() for _, one in build_parameters()]
    train(build_stepper(ours, "lion", lr=lr, betas=(beta1, beta2), weight_decay=decay), ours, start=0, stop=30)
    momenta = [torch.zeros_like(one) for one in theirs]
    for step in range(30):
        for position, (value, momentum) in enumerate(zip(theirs, momenta, strict=True)):
            gradient = draw_gradient(value.float(), step, position).double()
            value -= lr * (torch.sign(beta1 * momentum + (1 - beta1) * gradient) + decay * value)
            momentum.copy_(beta2 * momentum + (1 - beta2) * gradient)
    assert _moved(ours) > 0.005
    for (_, one), other in zip(ours, theirs, strict=True):
        wrong = (one - other).abs()
        assert (wrong < 1e-5).double().mean() > 0.999  # a sign may differ where the mean is 0 to rounding
        assert wrong.max() < 5 * lr


@pytest.mark.parametrize("name", ["adamw", "adamw_bf16", "adamw_8bit", "adafactor", "lion", "lion_8bit"])
def test_a_gradient_of_zero_only_decays(name: str) -> None:
    parameters = build_parameters()
    optimizer = build_stepper(parameters, name, weight_decay=0.5)
    for _ in range(3):
        for _, parameter in parameters:
            parameter.grad = torch.zeros_like(parameter)
        optimizer.step()
    for (_, one), (_, start) in zip(parameters, build_parameters(), strict=True):
        assert torch.allclose(one, start * (1 - 1e-3 * 0.5) ** 3, rtol=1e-6)
