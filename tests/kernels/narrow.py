"""Processors of AMD, wherever tests run: what is taken there is taken here, for factors of any size."""

from __future__ import annotations

import pytest
import torch

from weber.kernels import activate, attention_products, product

needs_onednn = pytest.mark.skipif(not torch.backends.mkldnn.is_available(), reason="this PyTorch has no oneDNN")


def put_narrow(monkeypatch: pytest.MonkeyPatch, *, is_narrow: bool = True, is_any_size: bool = False) -> None:
    """As if MKL took AVX2 where there is AVX-512, or as if it did not."""
    for module in (product, activate, attention_products):
        monkeypatch.setattr(module, "has_narrow_mkl", lambda: is_narrow)
    if is_any_size:
        for name in ("_LEAST_EDGE", "_LEAST_SIZE", "_LEAST_COLUMNS_SIZE", "_LEAST_ROWS"):
            monkeypatch.setattr(product, name, 1)
        monkeypatch.setattr(attention_products, "_LEAST_TOKENS", 1)
