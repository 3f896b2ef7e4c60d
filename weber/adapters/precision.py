"""Precision of the numbers in adapter files."""

from __future__ import annotations

from collections.abc import Mapping

import torch
from torch import Tensor

from weber.errors import AdapterError

PRECISIONS = {"fp32": torch.float32, "bf16": torch.bfloat16, "fp16": torch.float16}
"""By `output.precision`."""
_ALPHA = ".alpha"


def build_rounded(tensors: Mapping[str, Tensor], precision: str | None) -> dict[str, Tensor]:
    """The tensors of a file in this precision, None: as they are. An alpha stays exact. Raises AdapterError for numbers out of range."""
    if precision is None:
        return dict(tensors)
    rounded = {name: one if name.endswith(_ALPHA) else one.to(PRECISIONS[precision]) for name, one in tensors.items()}
    for name, one in rounded.items():
        if not one.isfinite().all() and tensors[name].isfinite().all():
            raise AdapterError(
                "The adapter has numbers that its files cannot hold in this precision.",
                got=f'output.precision = "{precision}", and {name} holds {float(tensors[name].abs().max()):.3g}',
                expected=f"at most {torch.finfo(one.dtype).max:.3g}",
                fix='set output.precision = "bf16", and go on with --resume',
            )
    return rounded
