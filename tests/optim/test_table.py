"""The optimizers by name, with the settings that the config says."""

from __future__ import annotations

import pytest
import torch
from torch import nn

from weber.config.optim import OptimConfig
from weber.optim.adamw_bf16 import AdamWBf16
from weber.optim.table import OPTIMIZERS, build_optimizer


def _parameters() -> list[nn.Parameter]:
    generator = torch.Generator().manual_seed(0)
    return [nn.Parameter(torch.randn(*shape, generator=generator)) for shape in ((16, 8), (3,))]


def test_every_name_of_the_config_is_a_row() -> None:
    assert set(OPTIMIZERS) == set(OptimConfig.model_fields["name"].annotation.__args__)
    assert all(row.summary for row in OPTIMIZERS.values())


@pytest.mark.parametrize(("name", "kind"), [("adamw", torch.optim.AdamW), ("adamw_bf16", AdamWBf16)])
def test_settings_arrive(name: str, kind: type[torch.optim.Optimizer]) -> None:
    config = OptimConfig(name=name, lr=3e-4, betas=(0.8, 0.95), eps=1e-6, weight_decay=0.2)
    optimizer = build_optimizer(_parameters(), config, seed=17)
    assert type(optimizer) is kind
    (group,) = optimizer.param_groups
    assert (group["lr"], group["betas"], group["eps"], group["weight_decay"]) == (3e-4, (0.8, 0.95), 1e-6, 0.2)
    assert len(group["params"]) == 2
    assert not isinstance(optimizer, AdamWBf16) or optimizer.seed == 17


def test_fused_adamw_equals_the_plain_one() -> None:
    fused_parameters, plain_parameters = _parameters(), _parameters()
    fused = build_optimizer(fused_parameters, OptimConfig(lr=1e-2), seed=0)
    plain = torch.optim.AdamW(plain_parameters, lr=1e-2, betas=(0.9, 0.999), eps=1e-8, weight_decay=0.01, fused=False, foreach=False)
    assert fused.defaults["fused"] is True
    for step in range(30):
        for one, other in zip(fused_parameters, plain_parameters, strict=True):
            one.grad = torch.randn(one.shape, generator=torch.Generator().manual_seed(step))
            other.grad = one.grad.clone()
        fused.step()
        plain.step()
    for one, other, start in zip(fused_parameters, plain_parameters, _parameters(), strict=True):
        assert (one - start).abs().mean() > 0.01
        assert torch.allclose(one, other, rtol=1e-5, atol=1e-6)
