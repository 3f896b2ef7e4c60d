"""Single parameters: they learn, bf16 too; the bits depend on the seed, the parameter and its step alone."""

from __future__ import annotations

import pytest
import torch
from torch import Tensor, nn

from tests.optim.conftest import OWN, build, build_parameters, build_stepper, draw_gradient, is_equal, train
from weber.optim.stepper import Host

LR = 1e-4
CASES = [(name, dtype) for name, row in OWN.items() for dtype in row.dtypes]


@pytest.mark.parametrize("is_fused", [True, False])
@pytest.mark.parametrize(("name", "dtype"), CASES)
def test_twenty_steps_learn(name: str, dtype: torch.dtype, is_fused: bool) -> None:
    generator = torch.Generator().manual_seed(0)
    inputs, truth = torch.randn(64, 96, generator=generator), torch.randn(96, 48, generator=generator) / 10
    weight = nn.Parameter(torch.zeros(96, 48, dtype=dtype))
    optimizer = build([("weight", weight)], name, lr=0.01, fused_backward=is_fused)
    losses = []
    for _ in range(20):
        loss = (inputs @ weight.float() - inputs @ truth).square().mean()
        losses.append(loss.item())
        loss.backward()
        optimizer.step()
        optimizer.zero_grad()
    assert losses[-1] < 0.1 * losses[0]
    assert all(after < before for before, after in zip(losses[:5], losses[1:6], strict=True))


def test_8_bits_are_near_fp32() -> None:
    """Gradients of two decades in a block: after 100 steps the paths are 10 % apart, and bf16 moments 1 %."""
    paths = {}
    for name in ("adamw", "adamw_8bit", "adamw_bf16"):
        weight = nn.Parameter(torch.zeros(128, 64))
        optimizer = build_stepper([("weight", weight)], name, weight_decay=0.0)
        sizes = 10 ** (-2 * torch.rand(128, 64, generator=torch.Generator().manual_seed(1)))
        for step in range(100):
            weight.grad = draw_gradient(weight, step, 0) * sizes
            optimizer.step()
        paths[name] = weight.detach()
    exact = paths["adamw"]
    assert exact.abs().mean() > 0.01
    assert (paths["adamw_8bit"] - exact).norm() < 0.1 * exact.norm()
    assert (paths["adamw_bf16"] - exact).norm() < 0.01 * exact.norm()


def _learn(optimizer: torch.optim.Optimizer, weight: nn.Parameter, target: Tensor) -> float:
    """Mean error left after 400 steps down |weight - target|^2."""
    for _ in range(400):
        optimizer.zero_grad()
        (weight.float() - target).square().mean().backward()
        optimizer.step()
    return (weight.detach().float() - target).abs().mean().item()


def test_bf16_weights_learn_where_plain_adamw_does_not() -> None:
    """At lr 1e-4, half a bf16 step at 0.5 is 0.001: rounding to nearest loses every update."""
    base = 0.6 + 0.1 * torch.rand(4096, generator=torch.Generator().manual_seed(0))
    target = base + 0.03
    weight = nn.Parameter(base.bfloat16())
    assert _learn(torch.optim.AdamW([weight], lr=LR, weight_decay=0.0), weight, target) > 0.029
    for name in ("adamw_bf16", "adamw_8bit", "adafactor", "lion", "lion_8bit"):
        weight = nn.Parameter(base.bfloat16())
        left = _learn(build_stepper([("weight", weight)], name, lr=LR, weight_decay=0.0), weight, target)
        assert left < 0.012, name  # neighbors are 0.004 apart there


@pytest.mark.parametrize("name", ["adamw_bf16", "adamw_8bit", "adafactor", "lion"])
def test_the_order_of_updates_changes_nothing(name: str) -> None:
    forth, back = build_parameters(torch.bfloat16), build_parameters(torch.bfloat16)
    for parameters, order in ((forth, 1), (back, -1)):
        stepper = build_stepper(parameters, name)
        for step in range(4):
            torch.manual_seed(order)
            for position, (_, parameter) in list(enumerate(parameters))[::order]:
                parameter.grad = draw_gradient(parameter, step, position)
                stepper.step_parameter(parameter)
    assert is_equal(forth, back)


def test_the_seed_and_the_number_of_the_parameter_decide_the_bits() -> None:
    def run(seed: int) -> list[Tensor]:
        twins = [(name, nn.Parameter(torch.ones(64, 64, dtype=torch.bfloat16))) for name in ("one", "other")]
        stepper = build_stepper(twins, "lion", seed=seed)
        for _, twin in twins:
            twin.grad = torch.ones_like(twin)
        stepper.step()
        return [twin.detach() for _, twin in twins]

    before = torch.get_rng_state()
    first, again, other = run(3), run(3), run(4)
    assert torch.equal(first[0], again[0]) and torch.equal(first[1], again[1])
    assert not torch.equal(first[0], first[1])
    assert not torch.equal(first[0], other[0])
    assert torch.equal(torch.get_rng_state(), before)


def test_parameters_without_gradient_are_left_alone() -> None:
    parameters = build_parameters()
    (_, moved), (_, still), _ = parameters
    moved.grad = torch.ones_like(moved)
    stepper = build_stepper(parameters, "adamw_8bit")
    stepper.step()
    assert torch.equal(still, build_parameters()[1][1])
    assert not stepper.state[still]


def test_settings_act() -> None:
    moved = {}
    for name, settings in {"base": {}, "lr": {"lr": 2e-4}, "decay": {"weight_decay": 0.5}, "eps": {"eps": 1.0}}.items():
        parameters = build_parameters()
        train(build_stepper(parameters, "adamw_bf16", **({"lr": LR} | settings)), parameters, start=0, stop=3)
        moved[name] = (parameters[0][1] - build_parameters()[0][1]).detach()
    assert moved["lr"].abs().mean().item() == pytest.approx(2 * moved["base"].abs().mean().item(), rel=0.05)
    assert torch.allclose(moved["decay"] - moved["base"], -3 * LR * 0.49 * build_parameters()[0][1], rtol=0.05, atol=1e-6)
    assert moved["eps"].abs().mean() < 0.7 * moved["base"].abs().mean()


def test_a_flag_decides_whether_anything_changes() -> None:
    for name in OWN:
        parameters = build_parameters()
        stepper = build_stepper(parameters, name)
        train(stepper, parameters, start=0, stop=2)
        parameter = parameters[0][1]
        value, state = parameter.detach().clone(), {key: tensor.clone() for key, tensor in stepper.state[parameter].items()}
        parameter.grad = torch.full_like(parameter, float("nan"))
        stepper.step_parameter(parameter, is_finite=torch.tensor(False))
        assert torch.equal(parameter, value)
        assert all(torch.equal(tensor, state[key]) for key, tensor in stepper.state[parameter].items() if key != "step")


def test_host_memory_is_cut_from_chunks() -> None:
    host = Host(is_pinned=False)
    tensors = [torch.arange(7.0), torch.arange(6).view(2, 3).bfloat16(), torch.tensor(3, dtype=torch.uint8), torch.empty(0)]
    kept = [host.keep(tensor) for tensor in tensors]
    assert all(torch.equal(one, other) and one.dtype == other.dtype for one, other in zip(tensors, kept, strict=True))
    assert len({tensor.untyped_storage().data_ptr() for tensor in kept}) == 1
    kept[0].zero_()
    assert torch.equal(kept[1], tensors[1])
