"""What stands around products in 8 bits: the reference against the formula, and the kernel against the reference."""

from __future__ import annotations

import pytest
import torch
from torch import Tensor

from tests.kernels.interpreter import Interpreter
from tests.kernels.near import check_near, deepen, draw
from weber.kernels.eight import TINY, rescale, round_rows

LARGEST = {"int8": 127.0, "fp8": 448.0}
SHAPES = [(1, 16), (7, 40), (33, 2100), (4608, 8)]
every_shape = pytest.mark.parametrize("shape", SHAPES, ids=str)
every_form = pytest.mark.parametrize("form", LARGEST)
every_dtype = pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16], ids=["fp32", "bf16"])


def _round(rows: Tensor, factor: Tensor | None, form: str) -> tuple[Tensor, Tensor]:
    codes, scale = round_rows(rows, factor, LARGEST[form], form == "int8")
    return codes, scale


def _read(codes: Tensor) -> Tensor:
    """The numbers that codes stand for."""
    return (codes.view(torch.float8_e4m3fn) if codes.dtype == torch.uint8 else codes).float()


@every_form
@every_shape
def test_the_reference_is_the_formula(form: str, shape: tuple[int, int]) -> None:
    rows, factor = draw(*shape, seed=1), draw(shape[1], seed=2)
    rows[0].zero_()
    codes, scale = _round(rows, factor, form)
    most = (rows * factor).abs().amax(dim=1, keepdim=True)
    assert torch.equal(scale, (most / LARGEST[form]).clamp(min=TINY)) and not _read(codes[0]).any()
    off = (_read(codes) * scale - rows * factor).abs()
    # half of the distance between two codes: of whole numbers 1, of fp8's largest ones a sixteenth of the code
    assert (off <= 0.5001 * scale * (1 if form == "int8" else _read(codes).abs().clamp(min=2**-6) / 8)).all()

    product, columns, there = torch.randint(-999, 999, shape, dtype=torch.int32), draw(shape[1], seed=3), draw(*shape, seed=4)
    for is_begun in (False, True):
        out = there.clone()
        rescale(product, scale, columns, out, is_begun)
        torch.testing.assert_close(out, product * scale * columns + (there if is_begun else 0), rtol=1e-6, atol=1e-6)


@every_dtype
@every_form
@every_shape
def test_rounding_is_the_reference(interpret: Interpreter, form: str, shape: tuple[int, int], dtype: torch.dtype) -> None:
    """Every code, of rows that are part of wider ones, with a factor and without."""
    rows = draw(shape[0], shape[1] + 11, seed=1, dtype=dtype)[:, 3:-8]
    for factor in (None, draw(shape[1], seed=2)):
        (codes, scale), _ = interpret("eight", "round_rows", rows, factor, LARGEST[form], form == "int8")
        wanted_codes, wanted_scale = _round(rows, factor, form)
        assert torch.equal(scale, wanted_scale) and torch.equal(_read(codes), _read(wanted_codes))


@every_dtype
@pytest.mark.parametrize("product_dtype", [torch.int32, torch.bfloat16], ids=["whole", "bf16"])
@every_shape
def test_rescaling_is_the_reference(
    interpret: Interpreter, shape: tuple[int, int], product_dtype: torch.dtype, dtype: torch.dtype
) -> None:
    """Into columns of a wider tensor, whose others stay as they are."""
    product = (1000 * draw(*shape, seed=1)).to(product_dtype)
    row_scale, there = draw(shape[0], 1, seed=2), draw(shape[0], shape[1] + 16, seed=4, dtype=dtype)
    for columns, is_begun in ((draw(shape[1], seed=3), True), (None, False)):
        exact = deepen(there[:, 8:-8])
        rescale(deepen(product), deepen(row_scale), None if columns is None else deepen(columns), exact, is_begun)
        _, given = interpret("eight", "rescale", product, row_scale, columns, there.clone()[:, 8:-8], is_begun)
        check_near(given[3], exact)


@every_form
def test_what_is_no_number_stays_so(interpret: Interpreter, form: str) -> None:
    rows = draw(4, 24)
    rows[1, 3], rows[2, 4] = torch.nan, torch.inf
    for codes, scale in (_round(rows, None, form), interpret("eight", "round_rows", rows, None, LARGEST[form], form == "int8")[0]):
        found = (_read(codes).sum(dim=1, keepdim=True) * scale).isfinite().flatten()
        assert found.tolist() == [True, False, False, True]
