"""The optimizers by name, with the settings that the config says, and the bytes that they take."""

from __future__ import annotations

import pytest
import torch
from torch import nn

from tests.optim.conftest import OWN, Named, build, build_parameters, train
from weber.config.optim import OptimConfig
from weber.config.optimizers import FACTS
from weber.errors import ConfigError
from weber.optim.stepper import Stepper
from weber.optim.table import OPTIMIZERS, build_optimizer, check_optimizer


def test_every_name_of_the_config_is_a_row() -> None:
    assert list(OPTIMIZERS) == list(FACTS)
    assert all(row.summary for row in OPTIMIZERS.values())
    assert [name for name, facts in FACTS.items() if facts.is_own] == list(OWN)


@pytest.mark.parametrize("name", OWN)
def test_settings_arrive(name: str) -> None:
    settings = {} if name == "adafactor" else {"betas": (0.8, 0.95)}
    settings |= {} if name.startswith("lion") else {"eps": 1e-6}
    optimizer = build(build_parameters(), name, seed=17, lr=3e-4, weight_decay=0.2, **settings)
    assert type(optimizer) is (torch.optim.AdamW if name == "adamw" else Stepper)
    (group,) = optimizer.param_groups
    assert (group["lr"], group["eps"], group["weight_decay"]) == (3e-4, settings.get("eps", 0.0), 0.2)
    assert group["betas"] == settings.get("betas", (0.0, 0.0))
    assert len(group["params"]) == 3
    assert not isinstance(optimizer, Stepper) or optimizer.seed == 17


@pytest.mark.parametrize("settings", [{}, {"fused_backward": True}])
@pytest.mark.parametrize("name", OWN)
def test_parameters_have_rates_of_their_own(name: str, settings: dict[str, object]) -> None:
    """Three parameters at 1, 1 and 3 times the rate move as three that are trained alone at those rates."""
    together, rates = build_parameters(), [1.0, 1.0, 3.0]
    config = OptimConfig(name=name, lr=1e-3, **settings)
    optimizer = build_optimizer([one for _, one in together], config, seed=5, rates=rates)
    assert [(group["rate"], len(group["params"])) for group in optimizer.param_groups] == [(1.0, 2), (3.0, 1)]
    train(optimizer, together, start=0, stop=3)
    for position, rate in enumerate(rates):
        alone = build_parameters()
        train(build(alone, name, lr=1e-3 * rate, **settings), alone, start=0, stop=3)
        assert torch.equal(together[position][1], alone[position][1])


@pytest.mark.parametrize("settings", [{"fused_backward": True}, {"state_on": "host"}])
def test_adamw_that_must_step_alone_is_ours(settings: dict[str, object]) -> None:
    assert type(build(build_parameters(), "adamw", **settings)) is Stepper


def test_fused_adamw_equals_the_plain_one() -> None:
    fused_parameters, plain_parameters = build_parameters(), build_parameters()
    fused = build(fused_parameters, "adamw", lr=1e-2)
    plain = torch.optim.AdamW(
        [one for _, one in plain_parameters], lr=1e-2, betas=(0.9, 0.999), eps=1e-8, weight_decay=0.01, fused=False, foreach=False
    )
    assert fused.defaults["fused"] is True
    train(fused, fused_parameters, start=0, stop=30)
    train(plain, plain_parameters, start=0, stop=30)
    for (_, one), (_, other), (_, start) in zip(fused_parameters, plain_parameters, build_parameters(), strict=True):
        assert (one - start).abs().mean() > 0.01
        assert torch.allclose(one, other, rtol=1e-5, atol=1e-6)


@pytest.mark.parametrize(
    ("name", "dtype", "fix"), [("adamw", torch.bfloat16, 'adapter.precision = "fp32"'), ("lion", torch.float16, "adamw_bf16")]
)
def test_weights_that_it_cannot_train_are_refused(name: str, dtype: torch.dtype, fix: str) -> None:
    config = OptimConfig(name=name, lr=1e-4)  # type: ignore[arg-type]
    with pytest.raises(ConfigError) as before:
        check_optimizer(config, [torch.float32, dtype])
    with pytest.raises(ConfigError) as built:
        build_optimizer([nn.Parameter(torch.ones(3, dtype=dtype))], config, seed=0)
    for caught in (before, built):
        assert f'optim.name = "{name}"' in str(caught.value)
        assert fix in str(caught.value)
    check_optimizer(config, [torch.float32])


def _state_bytes(optimizer: torch.optim.Optimizer, parameters: Named) -> list[int]:
    return [sum(tensor.nbytes for tensor in optimizer.state[parameter].values()) for _, parameter in parameters]


@pytest.mark.parametrize("settings", [{}, {"fused_backward": True}, {"state_on": "host"}], ids=["plain", "fused", "host"])
@pytest.mark.parametrize("name", OWN)
def test_the_bytes_are_those_of_the_real_state(name: str, settings: dict[str, object]) -> None:
    parameters = build_parameters()
    optimizer = build(parameters, name, **settings)
    train(optimizer, parameters, start=0, stop=1)
    assert _state_bytes(optimizer, parameters) == [OWN[name].state_bytes(parameter.shape) for _, parameter in parameters]


@pytest.mark.parametrize(
    ("name", "precision", "expected"),
    [
        ("adamw", "fp32", 8.0),
        ("adamw_bf16", "bf16", 4.0),
        ("adamw_8bit", "8 bit", 2 + 2 * 4 / 256),
        ("adafactor", "fp32", 4 * (1 / 3072 + 1 / 12288)),
        ("lion", "fp32", 4.0),
        ("lion_8bit", "8 bit", 1 + 4 / 256),
    ],
)
def test_bytes_per_number(name: str, precision: str, expected: float) -> None:
    row = OWN[name]
    assert row.precision == precision
    assert (row.state_bytes((12288, 3072)) - 4) / (12288 * 3072) == pytest.approx(expected, rel=1e-12)


def test_what_needs_a_gpu_is_not_measured_with_options() -> None:
    row = OPTIMIZERS["bnb_ademamix"]
    assert row.state_bytes((64, 64), options={"alpha": 3.0}) == row.state_bytes((64, 64)) == 12 * 64 * 64 + 8
