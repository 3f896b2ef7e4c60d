"""What every format of frozen weights promises: shapes that are known before, finite numbers, and no error above its bound."""

from __future__ import annotations

import logging

import bitsandbytes.functional
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor

from weber.memory import nf4
from weber.memory.formats import FORMATS, Format

DTYPES = (torch.float32, torch.bfloat16, torch.float16)
every_format = pytest.mark.parametrize("layout", FORMATS.values(), ids=FORMATS)

RELATIVE_ERRORS = {"int8": 0.0095, "fp8": 0.027, "nf4": 0.093, "int4": 0.092, "int2": 0.46}
"""Root mean square error over that of normally distributed weights, at most."""

LARGEST_BOUNDS = {"int8": 0.5 / 126, "fp8": 1 / 15.9, "nf4": 0.17, "int4": 1 / 14.7, "int2": 1 / 2.95}
"""Bound over the largest magnitude of normally distributed weights, at most: so that no bound allows everything."""


@st.composite
def weights(draw: st.DrawFn) -> Tensor:
    """Matrices of any sizes and magnitudes; some groups and rows zero, some constant, some with one weight that stands out."""
    generator = torch.Generator().manual_seed(draw(st.integers(0, 2**32)))
    num_out, num_in = draw(st.integers(1, 6)), draw(st.integers(1, 300))
    weight = torch.randn(num_out, num_in, generator=generator) * 10 ** draw(st.floats(-6, 3.5))
    weight += draw(st.sampled_from([0.0, 0.0, 1.0, -300.0]))
    for start in range(0, num_in, 64):
        group = weight[draw(st.integers(0, num_out - 1)), start : start + 64]
        match draw(st.sampled_from(["as it is", "zero", "constant", "outlier"])):
            case "zero":
                group.zero_()
            case "constant":
                group.copy_(group[0].clone().expand_as(group))
            case "outlier":
                group[0] = draw(st.sampled_from([-1e4, 1e4, 1e-6]))
    if draw(st.booleans()):
        weight[-1].zero_()
    return weight.to(draw(st.sampled_from(DTYPES)))


@every_format
@given(weight=weights())
@settings(max_examples=60, deadline=None)
def test_no_error_is_above_the_bound(layout: Format, weight: Tensor) -> None:
    unpacked = layout.unpack(layout.pack(weight), shape=tuple(weight.shape), dtype=torch.float32)
    bound = layout.bound(weight)
    assert unpacked.shape == bound.shape == weight.shape
    assert bound.isfinite().all()
    assert ((unpacked - weight.float()).abs() <= bound).all()


@every_format
@given(weight=weights())
@settings(max_examples=30, deadline=None)
def test_what_is_stored_is_known_before(layout: Format, weight: Tensor) -> None:
    num_out, num_in = weight.shape
    packed = layout.pack(weight)
    assert {name: (tuple(tensor.shape), tensor.dtype) for name, tensor in packed.items()} == layout.packed_shapes(num_out, num_in)
    assert all(tensor.is_contiguous() for tensor in packed.values())
    assert sum(tensor.untyped_storage().nbytes() for tensor in packed.values()) == layout.num_bytes(num_out, num_in)


@every_format
@pytest.mark.parametrize("dtype", DTYPES, ids=str)
@pytest.mark.parametrize("magnitude", [1e-5, 1.0, 1e3])
def test_other_dtypes_are_fp32_rounded_once(layout: Format, magnitude: float, dtype: torch.dtype) -> None:
    weight = magnitude * torch.randn(40, 200, generator=torch.Generator().manual_seed(1))
    packed = layout.pack(weight)
    exact = layout.unpack(packed, shape=(40, 200), dtype=torch.float32)
    rounded = layout.unpack(packed, shape=(40, 200), dtype=dtype)
    assert rounded.dtype == dtype
    half_a_digit = torch.finfo(dtype).eps / 2 * exact.abs().clamp(min=torch.finfo(dtype).tiny)
    assert ((rounded.float() - exact).abs() <= half_a_digit).all()
    assert torch.equal(layout.unpack(packed, shape=(40, 200), dtype=torch.float64), exact.double())


@every_format
def test_errors_and_bounds_of_normal_weights(layout: Format) -> None:
    weight = torch.randn(256, 1024, generator=torch.Generator().manual_seed(2))
    error = layout.unpack(layout.pack(weight), shape=(256, 1024), dtype=torch.float32) - weight
    assert error.norm() / weight.norm() <= RELATIVE_ERRORS[layout.name]
    groups, bounds = weight.view(256, -1, 64), layout.bound(weight).view(256, -1, 64)
    whole = weight.abs().amax(dim=1)[:, None, None] if layout.group == 1 else groups.abs().amax(dim=2, keepdim=True)
    assert (bounds / whole <= LARGEST_BOUNDS[layout.name]).all()


@pytest.mark.parametrize(("name", "bits"), [("int8", 8.008), ("fp8", 8.008), ("nf4", 4.127), ("int4", 4.5), ("int2", 2.5)])
def test_bits_per_weight(name: str, bits: float) -> None:
    assert FORMATS[name].bits == pytest.approx(bits, abs=6e-4)


@every_format
def test_rows_do_not_depend_on_how_many_are_packed_together(layout: Format) -> None:
    weight = torch.randn(700, 1600, generator=torch.Generator().manual_seed(3))  # several pieces
    unpacked = layout.unpack(layout.pack(weight), shape=(700, 1600), dtype=torch.float32)
    assert ((unpacked - weight).abs() <= layout.bound(weight)).all()
    if layout.name != "nf4":  # whose scales of scales are those of the whole weight
        alone = layout.unpack(layout.pack(weight[600:601]), shape=(1, 1600), dtype=torch.float32)
        assert torch.equal(alone, unpacked[600:601])


@every_format
def test_a_weight_that_is_not_contiguous(layout: Format) -> None:
    weight = torch.randn(128, 48, generator=torch.Generator().manual_seed(4)).t()
    packed, same = layout.pack(weight), layout.pack(weight.contiguous())
    assert all(torch.equal(packed[name], same[name]) for name in same)
    assert torch.equal(layout.bound(weight), layout.bound(weight.contiguous()))


@every_format
def test_weights_that_are_zero_stay_zero(layout: Format) -> None:
    packed = layout.pack(torch.zeros(3, 130, dtype=torch.bfloat16))
    assert torch.equal(layout.unpack(packed, shape=(3, 130), dtype=torch.bfloat16), torch.zeros(3, 130, dtype=torch.bfloat16))


@every_format
def test_the_meta_device_has_shapes_and_no_data(layout: Format) -> None:
    packed = layout.pack(torch.empty(192, 100, dtype=torch.bfloat16, device="meta"))
    assert all(tensor.is_meta for tensor in packed.values())
    assert {name: (tuple(tensor.shape), tensor.dtype) for name, tensor in packed.items()} == layout.packed_shapes(192, 100)
    weight = layout.unpack(packed, shape=(192, 100), dtype=torch.bfloat16)
    assert weight.is_meta and weight.shape == (192, 100) and weight.dtype == torch.bfloat16


@pytest.mark.skipif(not torch.cuda.is_available(), reason="this machine has no CUDA GPU")
@every_format
def test_a_gpu_packs_the_same(layout: Format) -> None:
    weight = torch.randn(96, 200, generator=torch.Generator().manual_seed(6))
    here, there = layout.pack(weight), layout.pack(weight.cuda())
    unpacked = layout.unpack(there, shape=(96, 200), dtype=torch.float32).cpu()
    assert ((unpacked - weight).abs() <= layout.bound(weight)).all()
    assert (here["packed"] != there["packed"].cpu()).float().mean() < 1e-3  # ties, and the last digit of a scale
    moved = {name: tensor.cuda() for name, tensor in here.items()}
    for dtype in DTYPES:
        same = [layout.unpack(tensors, shape=(96, 200), dtype=dtype).cpu() for tensors in (here, moved)]
        torch.testing.assert_close(*same, rtol=torch.finfo(dtype).eps, atol=1e-6)


@pytest.mark.parametrize("dtype", DTYPES, ids=str)
def test_nf4_has_the_bytes_of_bitsandbytes(dtype: torch.dtype) -> None:
    weight = torch.randn(96, 640, generator=torch.Generator().manual_seed(5)).to(dtype)
    weight[3, 64:128] = 0
    theirs, state = bitsandbytes.functional.quantize_4bit(weight, blocksize=64, compress_statistics=True, quant_type="nf4")
    ours = FORMATS["nf4"].pack(weight)
    assert torch.equal(ours["packed"].view(-1), theirs.view(-1))
    assert torch.equal(ours["absmax"], state.absmax)
    assert torch.equal(ours["nested_absmax"], state.state2.absmax)
    assert torch.equal(ours["nested_code"], state.state2.code)
    assert torch.equal(ours["offset"], state.offset.view(1))
    unpacked = FORMATS["nf4"].unpack(ours, shape=(96, 640), dtype=dtype)
    assert torch.equal(unpacked, bitsandbytes.functional.dequantize_4bit(theirs, state))


def test_nf4_decides_like_bitsandbytes_at_every_boundary() -> None:
    levels = bitsandbytes.functional.get_4bit_type("nf4", device="cpu")
    boundaries = (levels[1:] + levels[:-1]) / 2
    near = [boundaries]
    for _ in range(100):
        near.append(near[-1].nextafter(torch.tensor(torch.inf)))
    for _ in range(100):
        near.insert(0, near[0].nextafter(torch.tensor(-torch.inf)))
    values = torch.cat([torch.cat(near), torch.linspace(-1, 1, 4097), levels])
    blocks = torch.nn.functional.pad(values, (0, -len(values) % 63)).view(-1, 63)
    weight = torch.cat([torch.ones(len(blocks), 1), blocks], dim=1)  # so that every block's scale is 1
    theirs, _ = bitsandbytes.functional.quantize_4bit(weight, blocksize=64, quant_type="nf4")
    assert torch.equal(nf4.pack_rows(weight)["packed"].view(-1), theirs.view(-1))


def test_the_note_of_bitsandbytes_is_not_shown() -> None:
    FORMATS["nf4"].pack(torch.ones(1, 64))
    assert not logging.getLogger("bitsandbytes.backends.cpu.ops").isEnabledFor(logging.WARNING)
