"""One layer's low-rank change, whatever file it comes from, and the arithmetic that keeps it exact.

Legend: R rank, I inputs, O outputs of the linear layer.
"""

from __future__ import annotations

import math
from dataclasses import dataclass

import torch
from torch import Tensor


@dataclass(frozen=True, eq=False)
class Factors:
    """The change alpha / rank * up @ down of a layer's weight (O, I); down is (R, I), up is (O, R).

    `magnitude` (O,): the layer is a DoRA; its changed weight is scaled, row by row, to these lengths.
    """

    down: Tensor
    up: Tensor
    alpha: float
    magnitude: Tensor | None = None

    @property
    def rank(self) -> int:
        """Number of rows of `down`."""
        return self.down.shape[0]

    @property
    def scale(self) -> float:
        """What `up @ down` is multiplied by."""
        return self.alpha / self.rank

    def build_delta(self) -> Tensor:
        """What is added to the weight (before a DoRA's rescaling), fp32. A baked scale gives the same bits as a stored one."""
        return self.build_baked().up.float() @ self.down.float()

    def build_baked(self) -> Factors:
        """The same change with alpha = rank: the scale is in `up`."""
        return Factors(self.down, build_scaled(self.up, self.scale), float(self.rank), self.magnitude)

    def build_weight(self, weight: Tensor) -> Tensor:
        """The changed weight of a layer with `weight` (O, I) fp32; a DoRA as in PEFT's `tuners/lora/variants.py`."""
        changed = weight + self.build_delta()
        if self.magnitude is None:
            return changed
        lengths: Tensor = torch.linalg.norm(changed, dim=1)
        return changed * (self.magnitude.float() / lengths)[:, None]


def build_scaled(tensor: Tensor, scale: float) -> Tensor:
    """tensor * scale, in fp32 unless nothing is lost in the tensor's own precision (bf16 has the exponents of fp32, fp16 has not)."""
    if scale == 1:
        return tensor
    return (tensor if tensor.dtype == torch.bfloat16 and is_power_of_two(scale) else tensor.float()) * scale


def build_unscaled(tensor: Tensor, scale: float) -> Tensor:
    """What gives `tensor` again when it is scaled, in fp32. Where `build_scaled` was exact, it is what there was before, bit for bit."""
    if scale == 1:
        return tensor
    factor = torch.tensor(scale).item()  # fp32, as the product has it; the quotient is rounded once
    return (tensor.double() / factor).float()


def is_power_of_two(scale: float) -> bool:
    """Whether a product with it loses nothing."""
    return math.frexp(scale)[0] == 0.5
