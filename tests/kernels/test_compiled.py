"""The kernels become good machine code, which needs no GPU: one architecture here, all of them in benchmarks/machine_code.py."""

from __future__ import annotations

import importlib
import re
from pathlib import Path
from types import ModuleType

import pytest

pytest.importorskip("triton")

BENCHMARKS = Path(__file__).parents[2] / "benchmarks"
KERNELS = ["modulate", "modulate_backward", "rotate", "rotate_backward", "swiglu", "swiglu_backward", "spread", "gather"]
KERNELS += ["round_rows", "rescale"]


@pytest.fixture
def machine_code(monkeypatch: pytest.MonkeyPatch) -> ModuleType:
    """The benchmark."""
    monkeypatch.syspath_prepend(BENCHMARKS)
    return importlib.import_module("machine_code")


@pytest.mark.parametrize("number", range(len(KERNELS)), ids=KERNELS)
def test_nothing_is_spilled_and_much_is_read_at_once(machine_code: ModuleType, number: int) -> None:
    launches = machine_code.list_launches(3072, 16)
    assert [launch.name for launch in launches] == KERNELS
    code = machine_code.build(launches[number], 90)
    assert code.spilled_bytes == 0 and 16 < code.registers <= 128
    assert code.shared_bytes <= 48 * 1024, "the smallest cards have 99 KiB; two programs at least are held"
    assert re.search(r"ld\.global\.v4|cp\.async\.cg", code.text), "16 bytes at a time"
    assert re.search(r"st\.global\.v[24]", code.text)
    is_whole = KERNELS[number] == "round_rows"  # to whole numbers, which integers are then made of
    assert re.search(r"div\.rn\.f32" if is_whole else r"cvt\.rn\.(bf16|satfinite)", code.text), "rounded to the nearest"
    assert ("cvt.rz." if is_whole else "cvt.rz") not in code.text
