"""One layer's change: its scale, its bits, its magnitudes."""

from __future__ import annotations

import pytest
import torch
from peft.tuners.lora import LoraConfig, LoraModel
from torch import nn

from weber.adapters.factors import Factors, build_scaled


def _draw(rank: int, alpha: float, dtype: torch.dtype = torch.float32) -> Factors:
    generator = torch.Generator().manual_seed(0)
    return Factors(torch.randn(rank, 5, generator=generator).to(dtype), torch.randn(7, rank, generator=generator).to(dtype), alpha)


def test_the_change_is_alpha_over_rank_times_up_times_down() -> None:
    factors = _draw(4, 6.0)
    assert (factors.rank, factors.scale) == (4, 1.5)
    assert torch.allclose(factors.build_delta(), 1.5 * factors.up @ factors.down)


@pytest.mark.parametrize("alpha", [4.0, 6.0, 0.1, 1 / 3, -2.0, 1e-3])
@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16, torch.float16])
def test_baking_changes_no_bit_of_the_change(alpha: float, dtype: torch.dtype) -> None:
    factors = _draw(4, alpha, dtype)
    baked = factors.build_baked()
    assert baked.alpha == baked.rank == 4
    assert torch.equal(baked.build_delta(), factors.build_delta())
    assert torch.equal(baked.build_baked().up, baked.up)


def test_a_tensor_keeps_its_precision_where_nothing_is_lost() -> None:
    tensor = torch.tensor([1.5, -0.0078125, 3e-8])
    assert build_scaled(tensor.bfloat16(), 0.25).dtype == torch.bfloat16
    assert build_scaled(tensor.bfloat16(), 1.5).dtype == torch.float32
    assert build_scaled(tensor.half(), 0.25).dtype == torch.float32  # 3e-8 is the smallest number that fp16 has
    assert build_scaled(tensor.half(), 1.0).dtype == torch.float16
    for dtype in (torch.bfloat16, torch.float16, torch.float32):
        assert torch.equal(build_scaled(tensor.to(dtype), 0.25).double(), tensor.to(dtype).double() / 4)


def test_a_dora_is_what_peft_computes() -> None:
    torch.manual_seed(0)
    layer = nn.Linear(5, 7, bias=False)
    base = layer.weight.detach().clone()
    model = LoraModel(nn.ModuleDict({"m": layer}), LoraConfig(r=3, lora_alpha=2, target_modules=["m"], use_dora=True), "default")
    wrapped = model.model["m"]
    nn.init.normal_(wrapped.lora_B["default"].weight)
    nn.init.uniform_(wrapped.lora_magnitude_vector["default"].weight, 1, 2)
    factors = Factors(
        wrapped.lora_A["default"].weight.detach(),
        wrapped.lora_B["default"].weight.detach(),
        2.0,
        wrapped.lora_magnitude_vector["default"].weight.detach(),
    )
    x = torch.randn(4, 5)
    with torch.no_grad():
        assert torch.allclose(x @ factors.build_weight(base).T, wrapped(x), atol=1e-6)
    assert torch.allclose(factors.build_weight(base).norm(dim=1), factors.magnitude, atol=1e-6)
