"""Products by oneDNN: those of PyTorch, whatever lies where, and the same for a picture alone and beside others."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from torch import Tensor

from tests.kernels.narrow import needs_onednn, put_narrow
from tests.kernels.near import check_near, draw
from weber.kernels import product
from weber.kernels.product import has_narrow_mkl, is_quicker, multiply, multiply_columns

pytestmark = needs_onednn


@pytest.fixture
def narrow(monkeypatch: pytest.MonkeyPatch) -> None:
    put_narrow(monkeypatch)


def _draw_parts(num_rows: int, num_columns: int, way: str, *, seed: int) -> Tensor:
    """The same shape, however it lies in memory."""
    wide = draw(num_rows + 3, 2 * num_columns + 5, seed=seed)
    if way == "part":
        return wide[2 : 2 + num_rows, 3 : 3 + num_columns]
    if way == "turned part":
        return draw(2 * num_columns + 5, num_rows + 3, seed=seed).t()[1 : 1 + num_rows, 2 : 2 + num_columns]
    whole = draw(num_rows, num_columns, seed=seed)
    return whole if way == "whole" else whole.t().contiguous().t()


WAYS = ["whole", "turned", "part", "turned part"]


@pytest.mark.parametrize("has_total", [False, True])
@pytest.mark.parametrize("factor_way", WAYS)
@pytest.mark.parametrize("rows_way", WAYS)
def test_it_is_the_product(narrow: None, rows_way: str, factor_way: str, has_total: bool) -> None:
    rows, factor = _draw_parts(70, 128, rows_way, seed=1), _draw_parts(128, 192, factor_way, seed=2)
    total = draw(70, 400, seed=3)[:, 7:199] if has_total else None
    exact = rows.double() @ factor.double() + (0 if total is None else total.double())
    assert is_quicker(rows, factor) == (rows_way in ("whole", "part"))
    check_near(multiply(rows, factor, total), exact)


def test_a_large_sum_stays_where_it_is(narrow: None, monkeypatch: pytest.MonkeyPatch) -> None:
    """It is made in parts, whose bits are those of the whole."""
    rows, factor, total = draw(700, 128, seed=1), draw(128, 192, seed=2), draw(700, 192, seed=3)
    whole = multiply(rows, factor, total.clone())
    monkeypatch.setattr(product, "_MOST_BYTES", 2**18)
    parts = list[int]()
    run = product._run_and_add
    monkeypatch.setattr(product, "_run_and_add", lambda rows, *rest: parts.append(len(rows)) or run(rows, *rest))
    assert multiply(rows, factor, total) is total and torch.equal(total, whole)
    assert len(parts) > 1 and min(parts) >= 16 and sum(parts) == 700


@pytest.mark.parametrize("has_out", [False, True])
@pytest.mark.parametrize("rows_way", ["whole", "part"])
@pytest.mark.parametrize("grad_way", ["whole", "turned", "part"])
def test_gradients_of_weights(narrow: None, grad_way: str, rows_way: str, has_out: bool) -> None:
    grad, rows = _draw_parts(80, 512, grad_way, seed=1), _draw_parts(80, 128, rows_way, seed=2)
    out = draw(600, 128, seed=3)[40:552] if has_out else None
    found = multiply_columns(grad, rows, out)
    assert out is None or found.data_ptr() == out.data_ptr()
    check_near(found, grad.double().t() @ rows.double())


@given(num_rows=st.integers(16, 90), start=st.integers(0, 40), num_more=st.integers(0, 60), width=st.sampled_from([128, 192, 640]))
def test_rows_are_the_same_beside_others(num_rows: int, start: int, num_more: int, width: int) -> None:
    with pytest.MonkeyPatch.context() as patch:
        put_narrow(patch)
        rows, factor = draw(start + num_rows + num_more, width), draw(width, 192, seed=1)
        own = slice(start, start + num_rows)
        assert is_quicker(rows[own], factor)
        assert torch.equal(multiply(rows[own], factor), multiply(rows, factor)[own])


@pytest.mark.parametrize(
    ("rows", "factor"),
    [
        (draw(64, 128, dtype=torch.float64), draw(128, 256, dtype=torch.float64)),
        (draw(64, 128, dtype=torch.bfloat16), draw(128, 256, dtype=torch.bfloat16)),
        (draw(64, 128).to("meta"), draw(128, 256).to("meta")),
        (draw(2, 128), draw(128, 256)),
        (draw(64, 128), draw(128, 16)),
        (draw(64, 16), draw(16, 256)),
    ],
    ids=["fp64", "bf16", "meta", "vectors", "narrow", "low rank"],
)
def test_everything_else_is_left_to_pytorch(narrow: None, rows: Tensor, factor: Tensor) -> None:
    assert not is_quicker(rows, factor)
    found = multiply(rows, factor)
    assert found.device.type == "meta" or torch.equal(found, rows @ factor)


@pytest.fixture
def asked_anew() -> Iterator[None]:
    has_narrow_mkl.cache_clear()
    yield
    has_narrow_mkl.cache_clear()


@pytest.mark.parametrize(
    ("vendor", "units", "expected"),
    [
        ("AuthenticAMD", "AVX512", True),
        ("AuthenticAMD", "AVX2", False),
        ("GenuineIntel", "AVX512", False),
    ],
)
@pytest.mark.parametrize("has_file", [True, False])
def test_which_processors(
    vendor: str, units: str, expected: bool, has_file: bool, asked_anew: None, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    if has_file:
        (tmp_path / "cpuinfo").write_text(f"processor\t: 0\nvendor_id\t: {vendor}\nmodel name\t: one\n")
    monkeypatch.setattr(product, "_CPU_INFO", tmp_path / "cpuinfo")
    monkeypatch.setattr(product.platform, "processor", lambda: f"AMD64 Family 26 Model 2 Stepping 1, {vendor}")
    monkeypatch.setattr(torch.backends.cpu, "get_cpu_capability", lambda: units)
    assert has_narrow_mkl() == expected
