"""Several layers' changes as one change of the layer that holds them all, and back without loss.

The makers' files keep queries, keys and values in one matrix, of which each of the library's layers is some rows. A change of the whole
has its parts' `down` matrices stacked and their `up` matrices on a diagonal of blocks.
"""

from __future__ import annotations

from collections.abc import Sequence
from fractions import Fraction
from functools import reduce

import torch
from torch import Tensor

from weber.adapters.factors import Factors
from weber.families.pairing import swap_halves


def build_fused(parts: Sequence[Factors | None], rows: Sequence[int], *, swapped: bool = False) -> Factors:
    """One change of a layer whose rows are those of `parts`, `rows` of each; None: those rows stay as they are.

    Alpha is the sum of the parts' where they have one scale and fp32 can hold the sum; else it is the rank, and the scales are in `up`.
    """
    there = [part for part in parts if part is not None]
    alpha = sum((Fraction(part.alpha) for part in there), Fraction(0))
    if len({Fraction(part.alpha) / part.rank for part in there}) > 1 or torch.tensor(float(alpha)).item() != alpha:
        baked = [part if part is None else part.build_baked() for part in parts]
        return build_fused(baked, rows, swapped=swapped)
    down = torch.cat([part.down for part in there])
    up = torch.zeros(sum(rows), len(down), dtype=reduce(torch.promote_types, (part.up.dtype for part in there)))
    row = column = 0
    for part, num_rows in zip(parts, rows, strict=True):
        if part is not None:
            up[row : row + num_rows, column : column + part.rank] = part.up
            column += part.rank
        row += num_rows
    return Factors(down, swap_halves(up) if swapped else up, float(alpha))


def build_parts(fused: Factors, rows: Sequence[int], *, swapped: bool = False) -> list[Factors | None]:
    """The change of each layer: its rows of `up`, without the columns that are zero there; None for a layer that does not change.

    What `build_fused` made comes back as it was. Where nothing changes at all, every layer is there with rank 1.
    """
    up = swap_halves(fused.up) if swapped else fused.up
    if len(rows) == 1:
        return [Factors(fused.down, up, fused.alpha)]
    chunks = torch.split(up, list(rows))
    used = [chunk.ne(0).any(dim=0) for chunk in chunks]
    if not any(columns.any() for columns in used):
        used = [torch.arange(fused.rank) == 0] * len(chunks)
    return [_cut(fused, chunk, columns=columns) if columns.any() else None for chunk, columns in zip(chunks, used, strict=True)]


def _cut(fused: Factors, up: Tensor, *, columns: Tensor) -> Factors:
    alpha = Fraction(fused.alpha) * int(columns.sum()) / fused.rank
    return Factors(fused.down[columns], up[:, columns], float(alpha))
