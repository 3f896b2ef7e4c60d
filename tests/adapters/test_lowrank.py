"""The low-rank layer against PEFT's own: the same numbers, and less that is kept for the backward pass."""

from __future__ import annotations

import warnings
from collections.abc import Sequence
from typing import Any

import pytest
import torch
from peft import LoraConfig, inject_adapter_in_model
from peft.tuners.lora import Linear
from torch import Tensor, nn
from torch.autograd.graph import saved_tensors_hooks

from weber.adapters.lowrank import Lengths, LowRank

SHAPES = [(2, 33, 24), (5, 24)]
NAMES = [("default",), ("default", "assistant"), ("assistant",)]


class Small(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.first, self.second = nn.Linear(24, 40), nn.Linear(40, 24, bias=False)

    def forward(self, x: Tensor) -> Tensor:
        return self.second(torch.sin(self.first(x)))  # type: ignore[no-any-return]


def _build(dtype: torch.dtype, names: Sequence[str] = ("default",), **settings: Any) -> nn.Module:
    """Adapters on both layers: `default` in fp32 (or wider) learns, `assistant` is frozen and in the model's own precision."""
    torch.manual_seed(0)
    model = Small().to(dtype).requires_grad_(False)
    for name in names:
        config = LoraConfig(r=4, lora_alpha=6, target_modules=["first", "second"], **settings)
        config._register_custom_module({nn.Linear: LowRank})
        with warnings.catch_warnings():
            warnings.filterwarnings("ignore", "Already found a `peft_config` attribute")
            inject_adapter_in_model(config, model, adapter_name=name)
    for layer in (model.first, model.second):
        assert type(layer) is LowRank
        layer.set_adapter(list(names))
        for name in names:
            nn.init.normal_(layer.lora_B[name].weight, std=0.3)
        if "assistant" in names:
            layer.set_requires_grad("assistant", requires_grad=False)
        if "default" in names and dtype == torch.bfloat16:
            layer.lora_A["default"].float()
            layer.lora_B["default"].float()
    return model


def _learn(model: nn.Module, kind: type[nn.Module], x: Tensor) -> list[Tensor]:
    """Output and all gradients, with the forward of that class."""
    for layer in (model.first, model.second):
        layer.__class__ = kind
    x = x.detach().requires_grad_(x.requires_grad)
    torch.manual_seed(3)
    output = model(x)
    gradient = torch.randn(output.shape, generator=torch.Generator().manual_seed(4)).to(output.dtype)
    model.zero_grad()
    output.backward(gradient)
    return [output.detach(), *(one.grad for one in (x, *model.parameters()) if one.grad is not None)]


def _list_saved(model: nn.Module, x: Tensor) -> list[Tensor]:
    """What is saved for the backward pass but the weights."""
    weights = {one.untyped_storage().data_ptr() for one in model.parameters()}
    saved: list[Tensor] = []

    def pack(tensor: Tensor) -> Tensor:
        saved.append(tensor)
        return tensor.detach()

    with saved_tensors_hooks(pack, lambda tensor: tensor):
        model(x)
    return [tensor for tensor in saved if tensor.untyped_storage().data_ptr() not in weights]


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
@pytest.mark.parametrize("shape", SHAPES)
@pytest.mark.parametrize(("names", "wants_x"), [*((one, True) for one in NAMES), *((one, False) for one in NAMES[:2])])
def test_equal_to_peft(dtype: torch.dtype, shape: tuple[int, ...], names: tuple[str, ...], wants_x: bool) -> None:
    model = _build(dtype, names)
    x = torch.randn(shape, dtype=dtype, requires_grad=wants_x)
    found, expected = _learn(model, LowRank, x), _learn(model, Linear, x)
    assert len(found) == len(expected) == 1 + wants_x + 4 * ("default" in names)
    assert all(torch.equal(one, other) and one.dtype == other.dtype for one, other in zip(found, expected, strict=True))


def test_equal_to_peft_with_dropout() -> None:
    model = _build(torch.bfloat16, lora_dropout=0.5).train()
    x = torch.randn(2, 9, 24, dtype=torch.bfloat16)
    found, expected = _learn(model, LowRank, x), _learn(model, Linear, x)
    assert all(torch.equal(one, other) for one, other in zip(found, expected, strict=True))
    assert not torch.equal(found[0], _learn(model.eval(), LowRank, x)[0])


def test_gradients_are_those_of_the_formula() -> None:
    model = _build(torch.float64, ("default", "assistant"))
    x = torch.randn(2, 3, 24, dtype=torch.float64, requires_grad=True)
    factors = [one for one in model.parameters() if one.requires_grad]

    def compute(x: Tensor, *_: Tensor) -> Tensor:
        return model(x)  # type: ignore[no-any-return]

    assert torch.autograd.gradcheck(compute, (x, *factors))


def test_the_input_is_kept_as_it_is() -> None:
    model = _build(torch.bfloat16)
    x = torch.randn(2, 33, 24, dtype=torch.bfloat16, requires_grad=True)
    assert [tensor.data_ptr() for tensor in _list_saved(model.first, x)] == [x.data_ptr()]
    for layer in (model.first, model.second):
        layer.__class__ = Linear
    assert sum(tensor.nbytes for tensor in _list_saved(model.first, x)) > 2 * x.nbytes, "PEFT keeps a copy in fp32"


def test_a_frozen_adapter_keeps_nothing() -> None:
    model = _build(torch.bfloat16, ("assistant",))
    assert _list_saved(model.first, torch.randn(2, 33, 24, dtype=torch.bfloat16, requires_grad=True)) == []


def test_strength_and_switches_are_pefts() -> None:
    model, x = _build(torch.float32), torch.randn(2, 24)
    with torch.no_grad():
        whole, base = model.first(x), model.first.base_layer(x)
        model.first.set_scale("default", 0.0)
        assert torch.equal(model.first(x), base)
        model.first.set_scale("default", 0.5)
        assert torch.allclose(model.first(x) - base, 0.5 * (whole - base), atol=1e-6)
        model.first.enable_adapters(False)
        assert torch.equal(model.first(x), base)
        model.first.enable_adapters(True)
        model.first.set_scale("default", 1.0)
        model.first.merge()
        assert torch.allclose(model.first(x), whole, atol=1e-5)


def test_on_the_meta_device() -> None:
    model = _build(torch.bfloat16).to("meta")
    x = torch.empty(1, 7, 24, device="meta", dtype=torch.bfloat16, requires_grad=True)
    model(x).sum().backward()
    assert x.grad is not None and x.grad.shape == x.shape
    assert all(one.grad is not None and one.grad.dtype == torch.float32 for one in model.parameters() if one.requires_grad)


def _build_dora(dtype: torch.dtype = torch.float32) -> tuple[nn.Module, nn.Module]:
    """PEFT's own, and ours with the same numbers."""
    torch.manual_seed(0)
    theirs = Small().to(dtype).requires_grad_(False)
    inject_adapter_in_model(LoraConfig(r=4, lora_alpha=6, target_modules=["first", "second"], use_dora=True), theirs)
    ours = _build(dtype)
    for layer, other in ((theirs.first, ours.first), (theirs.second, ours.second)):
        nn.init.normal_(layer.lora_B["default"].weight, std=0.3)
        layer.lora_magnitude_vector["default"].weight.data *= 1 + 0.3 * torch.rand(layer.out_features)
        for name in ("lora_A", "lora_B"):
            getattr(other, name)["default"].weight.data = getattr(layer, name)["default"].weight.data.clone()
        other.base_layer.load_state_dict(layer.base_layer.state_dict())
        other.lora_magnitude_vector["default"] = Lengths(layer.lora_magnitude_vector["default"].weight.data.clone())
    return theirs, ours


def test_a_dora_is_pefts() -> None:
    theirs, ours = _build_dora()
    x = torch.randn(2, 9, 24)
    results = []
    for model in (theirs, ours):
        own = x.clone().requires_grad_()
        output = model(own)
        output.square().sum().backward()
        gradients = {name: one.grad for name, one in model.named_parameters() if one.grad is not None}
        results.append({"output": output.detach(), "x": own.grad, **gradients})
    assert results[0].keys() == results[1].keys() and len(results[0]) == 2 + 2 * 3
    for name, one in results[0].items():
        assert torch.allclose(one, results[1][name], atol=1e-5 * float(one.abs().max())), name


def test_a_dora_between_the_base_and_all_of_it() -> None:
    """At half strength half of the change and a length halfway, whatever stands beside it."""
    _, model = _build_dora()
    layer, x = model.first, torch.randn(3, 24)
    with torch.no_grad():
        base = layer.base_layer(x)
        layer.set_scale("default", 0.0)
        assert torch.equal(layer(x), base)
        layer.set_scale("default", 0.5)
        weight, scale = layer.base_layer.weight, 6 / 4
        changed = weight + 0.5 * scale * layer.lora_B["default"].weight @ layer.lora_A["default"].weight
        lengths = (weight.norm(dim=1) + layer.lora_magnitude_vector["default"].weight) / 2
        expected = x @ (changed * (lengths / changed.norm(dim=1))[:, None]).T + layer.base_layer.bias
        assert torch.allclose(layer(x), expected, atol=1e-5)


def test_fresh_lengths_change_no_bit() -> None:
    """They are measured in fp32 on the weight that the layer computes with."""
    for dtype in (torch.bfloat16, torch.float32):
        model = _build(dtype)
        layer, x = model.first, torch.randn(3, 24, dtype=dtype)
        nn.init.zeros_(layer.lora_B["default"].weight)
        layer.lora_magnitude_vector["default"] = Lengths(layer.measure_lengths("default"))
        assert layer.lora_magnitude_vector["default"].weight.dtype == torch.float32
        assert torch.equal(layer(x), layer.base_layer(x))
