"""The packed layer against the layer it stands for: outputs, gradients, what it keeps, and that moving it changes no number."""

from __future__ import annotations

import copy
import pickle
from collections.abc import Callable
from pathlib import Path

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from peft import LoraConfig, inject_adapter_in_model
from safetensors.torch import load_file, save_file
from torch import Tensor, nn
from torch.utils.checkpoint import checkpoint

from weber.errors import ConfigError
from weber.memory.formats import FORMATS, Format
from weber.memory.packed import PackedLinear, build_packed
from weber.memory.products import LEAST_ROWS, PRODUCTS, check_product

NUM_IN, NUM_OUT = 208, 96  # rows that do not fill their last group
every_format = pytest.mark.parametrize("layout", FORMATS.values(), ids=FORMATS)


WAYS = [*((row, False) for row in FORMATS.values()), *((FORMATS[name], True) for name in PRODUCTS)]


def _draw(*size: int, seed: int, scale: float = 1.0) -> Tensor:
    return scale * torch.randn(size, generator=torch.Generator().manual_seed(seed))


def _build(layout: Format, *, dtype: torch.dtype = torch.float32, bias: bool = True, multiplies_packed: bool = False) -> PackedLinear:
    weight, offsets = _draw(NUM_OUT, NUM_IN, seed=1, scale=0.05), _draw(NUM_OUT, seed=2)
    return build_packed(weight, offsets if bias else None, format=layout, dtype=dtype, multiplies_packed=multiplies_packed)


def _build_plain(layer: PackedLinear) -> nn.Linear:
    """The linear layer with the packed layer's weight."""
    plain = nn.Linear(layer.in_features, layer.out_features, dtype=layer.dtype).requires_grad_(False)
    plain.weight.copy_(layer.weight)
    plain.bias.copy_(layer.bias)
    return plain


def _inject(layer: nn.Module, *, seed: int = 3) -> nn.Sequential:
    """The layer with a LoRA whose B is not zero."""
    model = nn.Sequential(layer)
    with torch.random.fork_rng():
        torch.manual_seed(seed)
        inject_adapter_in_model(LoraConfig(r=4, lora_alpha=4, target_modules=["0"]), model)
        nn.init.normal_(model[0].lora_B["default"].weight)
    return model


def _list_gradients(model: nn.Module, x: Tensor, run: Callable[..., Tensor] | None = None) -> dict[str, Tensor]:
    """Of the input and of everything that learns, for one and the same loss."""
    model.zero_grad()
    x = x.detach().requires_grad_()
    y = (run or model)(x)
    (y.float() * _draw(*y.shape, seed=9)).sum().backward()
    assert x.grad is not None
    gradients = {name: parameter.grad for name, parameter in model.named_parameters() if parameter.requires_grad}
    assert len(gradients) == 2
    return {"x": x.grad, **{name: gradient for name, gradient in gradients.items() if gradient is not None}}


@every_format
@given(seed=st.integers(0, 2**32), magnitude=st.floats(-3, 2), dims=st.lists(st.integers(1, 4), max_size=3))
@settings(max_examples=15, deadline=None)
def test_the_output_is_off_by_no_more_than_the_weights(layout: Format, seed: int, magnitude: float, dims: list[int]) -> None:
    weight, x = _draw(48, 100, seed=seed, scale=10**magnitude), _draw(*dims, 100, seed=seed + 1)
    layer = build_packed(weight, None, format=layout)
    exact = x.double() @ weight.double().t()
    allowed = x.abs() @ (layout.bound(weight) + 1e-6 * weight.abs()).t()
    y = layer(x)
    assert y.shape == (*dims, 48)
    assert ((y - exact).abs() <= allowed).all()


@every_format
@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16], ids=str)
def test_outputs_and_gradients_are_those_of_the_dequantized_layer(layout: Format, dtype: torch.dtype) -> None:
    layer = _build(layout, dtype=dtype)
    plain, x = _build_plain(layer), _draw(2, 5, NUM_IN, seed=4).to(dtype)
    ours, theirs = _inject(layer), _inject(plain)
    assert torch.equal(layer(x), plain(x))
    gradients, expected = _list_gradients(ours, x), _list_gradients(theirs, x)
    assert gradients.keys() == expected.keys()
    for name in expected:
        assert gradients[name].dtype == expected[name].dtype
        assert (gradients[name] - expected[name]).norm() <= 1e-3 * expected[name].norm(), name


@every_format
def test_the_gradient_is_that_of_the_function(layout: Format) -> None:
    layer = build_packed(_draw(3, 70, seed=5), None, format=layout)
    assert torch.autograd.gradcheck(layer, _draw(2, 70, seed=6).double().requires_grad_(), fast_mode=True)


@pytest.mark.parametrize(("layout", "multiplies_packed"), WAYS)
def test_only_the_packed_weight_is_kept_for_the_backward_pass(layout: Format, multiplies_packed: bool) -> None:
    layer, x = _build(layout, multiplies_packed=multiplies_packed), _draw(32, NUM_IN, seed=6).requires_grad_()
    kept: dict[int, int] = {}

    def note(tensor: Tensor) -> Tensor:
        kept[tensor.untyped_storage().data_ptr()] = tensor.untyped_storage().nbytes()
        return tensor

    with torch.autograd.graph.saved_tensors_hooks(note, lambda tensor: tensor):
        y = layer(x)
    assert kept.keys() == {buffer.untyped_storage().data_ptr() for buffer in layer.buffers()}
    assert sum(kept.values()) == layout.num_bytes(NUM_OUT, NUM_IN)
    y.sum().backward()
    assert x.grad is not None and x.grad.shape == x.shape


@every_format
def test_without_gradients_the_same(layout: Format) -> None:
    layer, x = _build(layout), _draw(7, NUM_IN, seed=7)
    with_gradients = layer(x.clone().requires_grad_())
    with torch.no_grad():
        y = layer(x)
    assert torch.equal(y, with_gradients) and not y.requires_grad


@every_format
def test_inputs_of_another_dtype_are_computed_in_theirs(layout: Format) -> None:
    layer, x = _build(layout, dtype=torch.bfloat16), _draw(3, NUM_IN, seed=8)
    weight = layout.unpack(dict(layer.named_buffers()), shape=(NUM_OUT, NUM_IN), dtype=torch.float32)
    assert torch.equal(layer(x), nn.functional.linear(x, weight, layer.bias.float()))
    with torch.autocast("cpu", torch.bfloat16):
        y = layer(x.requires_grad_())
    y.sum().backward()
    assert y.dtype == torch.bfloat16 and x.grad is not None and x.grad.dtype == torch.float32


@every_format
def test_checkpointing(layout: Format) -> None:
    model, x = _inject(_build(layout)), _draw(6, NUM_IN, seed=10)
    plain = _list_gradients(model, x)
    again = _list_gradients(model, x, lambda x: checkpoint(model, x, use_reentrant=False))
    assert all(torch.equal(plain[name], again[name]) for name in plain)


@every_format
def test_a_layer_from_tensors_on_disk(layout: Format, tmp_path: Path) -> None:
    layer, x = _build(layout, dtype=torch.bfloat16), _draw(3, NUM_IN, seed=11)
    save_file(layer.state_dict(), tmp_path / "layer.safetensors")
    stored = load_file(tmp_path / "layer.safetensors")
    bias = stored.pop("bias")
    built = PackedLinear(stored, bias, shape=(NUM_OUT, NUM_IN), format=layout, dtype=torch.bfloat16)
    loaded = build_packed(torch.zeros(NUM_OUT, NUM_IN), bias, format=layout, dtype=torch.bfloat16)
    loaded.load_state_dict(layer.state_dict())
    for other in (built, loaded):
        assert torch.equal(other(x), layer(x))
        assert not any(parameter.requires_grad for parameter in other.parameters())


@every_format
@pytest.mark.parametrize("copied", [copy.deepcopy, lambda layer: pickle.loads(pickle.dumps(layer))], ids=["deepcopy", "pickle"])
def test_copies(layout: Format, copied: Callable[[PackedLinear], PackedLinear]) -> None:
    layer, x = _build(layout), _draw(3, NUM_IN, seed=12)
    other = copied(layer)
    assert torch.equal(other(x), layer(x)) and other.format is layout
    assert other.W_q.data_ptr() != layer.W_q.data_ptr()


@every_format
def test_changing_the_dtype_changes_no_packed_number(layout: Format) -> None:
    layer, x = _build(layout), _draw(3, NUM_IN, seed=13)
    before, y = copy.deepcopy(dict(layer.named_buffers())), layer(x)
    moves: list[tuple[Callable[[], nn.Module], torch.dtype]] = [
        (lambda: layer.to(torch.bfloat16), torch.bfloat16),
        (layer.half, torch.float16),
        (layer.double, torch.float64),
        (lambda: nn.Sequential(layer).float()[0], torch.float32),
        (lambda: layer.to("cpu"), torch.float32),
        (layer.share_memory, torch.float32),
    ]
    for move, dtype in moves:
        assert move() is layer
        assert layer.dtype == layer.weight.dtype == layer.bias.dtype == dtype
        for name, buffer in layer.named_buffers():
            assert buffer.dtype == before[name].dtype and torch.equal(buffer, before[name])
    layer.bias.copy_(_draw(NUM_OUT, seed=2))
    assert torch.equal(layer(x), y)


@every_format
def test_the_meta_device(layout: Format) -> None:
    weight = torch.empty(NUM_OUT, NUM_IN, dtype=torch.bfloat16, device="meta")
    layer = build_packed(weight, torch.empty(NUM_OUT, dtype=torch.bfloat16, device="meta"), format=layout)
    x = torch.empty(2, 20, NUM_IN, dtype=torch.bfloat16, device="meta", requires_grad=True)
    y = _inject(layer)(x)
    y.sum().backward()
    assert y.is_meta and y.shape == (2, 20, NUM_OUT) and y.dtype == torch.bfloat16
    assert x.grad is not None and x.grad.shape == x.shape
    assert layer.weight.is_meta and layer.weight.shape == (NUM_OUT, NUM_IN)
    moved = _build(layout).to("meta")
    assert {name: (buffer.shape, buffer.dtype) for name, buffer in moved.named_buffers()} == layout.packed_shapes(NUM_OUT, NUM_IN)
    filled = moved.to_empty(device="cpu")
    assert {name: (buffer.shape, buffer.dtype) for name, buffer in filled.named_buffers()} == layout.packed_shapes(NUM_OUT, NUM_IN)


def test_peft_asks_for_the_weight_a_few_times_only(monkeypatch: pytest.MonkeyPatch) -> None:
    calls = []
    dequantize = PackedLinear.dequantize
    monkeypatch.setattr(PackedLinear, "dequantize", lambda self: calls.append(self) or dequantize(self))
    _inject(_build(FORMATS["int8"]))
    assert 1 <= len(calls) <= 4  # once more where torchao is installed


@every_format
def test_dora(layout: Format) -> None:
    layer, x = _build(layout), _draw(4, NUM_IN, seed=14)
    results = []
    for base in (layer, _build_plain(layer)):
        model = nn.Sequential(base)
        with torch.random.fork_rng():
            torch.manual_seed(1)
            inject_adapter_in_model(LoraConfig(r=4, use_dora=True, target_modules=["0"]), model)
        results.append(model(x))
    torch.testing.assert_close(*results)


def test_the_weight_cannot_be_replaced() -> None:
    layer = _build(FORMATS["int4"])
    with pytest.raises(KeyError):
        layer.weight = nn.Parameter(torch.zeros(NUM_OUT, NUM_IN))
    with pytest.raises(AttributeError):
        layer.weight = torch.zeros(NUM_OUT, NUM_IN)  # type: ignore[assignment]
    assert isinstance(layer, nn.Linear)
    assert [name for name, _ in layer.named_parameters()] == ["bias"]
    assert repr(layer) == f"PackedLinear(in_features={NUM_IN}, out_features={NUM_OUT}, bias=True, format=int4, dtype=torch.float32)"


@given(seed=st.integers(0, 2**32), magnitude=st.floats(-6, 4), num_rows=st.integers(LEAST_ROWS, 40))
@settings(max_examples=15, deadline=None)
def test_int8_products_are_off_by_half_a_step_of_each_input(seed: int, magnitude: float, num_rows: int) -> None:
    """Of a row of inputs and of a row of gradients: 1/254 of its largest magnitude."""
    weight, x = _draw(NUM_OUT, NUM_IN, seed=seed, scale=0.05), _draw(num_rows, NUM_IN, seed=seed + 1, scale=10**magnitude)
    x[0].zero_()
    layer = build_packed(weight, None, format=FORMATS["int8"], multiplies_packed=True)
    exact, x = layer.weight.double(), x.requires_grad_()
    y = layer(x)
    step = x.detach().double().abs().amax(dim=1, keepdim=True) / 127
    assert ((y - x.double() @ exact.t()).abs() <= 0.501 * step * exact.abs().sum(dim=1) + 1e-25).all()

    gradient = _draw(num_rows, NUM_OUT, seed=seed + 2, scale=10**-magnitude)
    y.backward(gradient)
    assert x.grad is not None
    scale = layer.get_buffer("scale").double()
    step = (gradient * scale).abs().amax(dim=1, keepdim=True) / 127
    whole = layer.W_q.double().abs()
    assert ((x.grad - gradient.double() @ exact).abs() <= 0.501 * step * whole.sum(dim=0) + 1e-25).all()


@pytest.mark.parametrize(("form", "share"), [("int8", 0.02), ("fp8", 0.05)])
@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16], ids=str)
def test_products_of_normal_numbers_are_near(form: str, share: float, dtype: torch.dtype) -> None:
    layer = _build(FORMATS[form], dtype=dtype, multiplies_packed=True)
    plain, x = _build_plain(layer), _draw(4, 16, NUM_IN, seed=15).to(dtype)
    y = layer(x)
    assert y.dtype == dtype and y.shape == (4, 16, NUM_OUT)
    gradients, expected = _list_gradients(_inject(layer), x), _list_gradients(_inject(plain), x)
    for ours, theirs in [(y, plain(x)), *((gradients[name], expected[name]) for name in expected)]:
        assert (ours.float() - theirs.float()).norm() <= share * theirs.float().norm()
    assert not torch.equal(gradients["x"], expected["x"])


@given(seed=st.integers(0, 2**32), magnitude=st.floats(-6, 4), num_rows=st.integers(LEAST_ROWS, 40))
@settings(max_examples=15, deadline=None)
def test_fp8_products_are_those_of_rounded_rows(seed: int, magnitude: float, num_rows: int) -> None:
    """Emulated: rows of inputs and of gradients, the weight's scales in these, as e4m3 with 448 for their largest magnitude."""
    weight, x = _draw(NUM_OUT, NUM_IN, seed=seed, scale=0.05), _draw(num_rows, NUM_IN, seed=seed + 1, scale=10**magnitude)
    x[0].zero_()
    layer, x = build_packed(weight, None, format=FORMATS["fp8"], multiplies_packed=True), x.requires_grad_()
    codes, scale = layer.W_q.view(torch.float8_e4m3fn).double(), layer.get_buffer("scale").double()

    def round_rows(rows: Tensor) -> Tensor:
        step = rows.abs().amax(dim=1, keepdim=True).clamp(min=1e-30) / 448
        return (rows / step).to(torch.float8_e4m3fn).double() * step.double()

    y, gradient = layer(x), _draw(num_rows, NUM_OUT, seed=seed + 2, scale=10**-magnitude)
    y.backward(gradient)
    assert x.grad is not None
    expected = round_rows(x.detach()) @ codes.t() * scale.view(1, -1)
    assert (y - expected).norm() <= 1e-5 * expected.norm()
    expected = round_rows(gradient * scale.view(1, -1).float()) @ codes
    assert (x.grad - expected).norm() <= 1e-5 * expected.norm()


@pytest.mark.parametrize("form", PRODUCTS)
def test_few_rows_are_not_multiplied_in_8_bits(form: str) -> None:
    layer, x = _build(FORMATS[form], multiplies_packed=True), _draw(LEAST_ROWS, NUM_IN, seed=16)
    plain = _build(FORMATS[form])
    assert torch.equal(layer(x[1:]), plain(x[1:]))
    assert not torch.equal(layer(x), plain(x))


@pytest.mark.parametrize("form", PRODUCTS)
def test_numbers_that_are_not_finite_stay_so_in_8_bits(form: str) -> None:
    layer, x = _build(FORMATS[form], multiplies_packed=True), _draw(32, NUM_IN, seed=17)
    x[0, 3], x[1, 4] = torch.nan, torch.inf
    finite = layer(x).isfinite().all(dim=1)
    assert not finite[:2].any() and finite[2:].all()


@pytest.mark.skipif(not torch.cuda.is_available(), reason="this machine has no CUDA GPU")
@pytest.mark.parametrize(("layout", "multiplies_packed"), WAYS)
def test_a_gpu_computes_the_same(layout: Format, multiplies_packed: bool) -> None:
    layer, x = _build(layout, multiplies_packed=multiplies_packed), _draw(64, NUM_IN, seed=18)
    model = _inject(layer)
    expected, y = _list_gradients(model, x), model(x)
    model.cuda()
    gradients = _list_gradients(model, x.cuda(), lambda x: model(x).cpu())
    torch.testing.assert_close(model(x.cuda()).cpu(), y, rtol=1e-3, atol=1e-3)
    for name in expected:
        assert (gradients[name].cpu() - expected[name]).norm() <= 2e-3 * expected[name].norm(), name


@pytest.mark.parametrize("form", PRODUCTS)
@pytest.mark.parametrize(("num_in", "num_out"), [(100, 64), (64, 100)])
def test_sizes_that_cannot_be_multiplied_in_8_bits(form: str, num_in: int, num_out: int) -> None:
    with pytest.raises(ConfigError, match=f"{num_in} inputs and {num_out} outputs") as caught:
        check_product(form, in_features=num_in, out_features=num_out)
    assert f"memory.{form}_matmul" in caught.value.got


def test_sizes_that_can_be_multiplied_in_8_bits() -> None:
    check_product("int8", in_features=3072, out_features=12288)
    check_product("int8", in_features=8, out_features=8)
    check_product("fp8", in_features=64, out_features=16)
