"""Several layers' changes as one change of the layer that holds them all, and back without loss.

The makers' files keep queries, keys and values in one matrix, of which each of the library's layers is some rows. A change of the whole
has its parts' `down` matrices stacked and their `up` matrices on a diagonal of blocks; where the parts have rows of `down` in common, their
`up` matrices lie below each other.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from fractions import Fraction
from functools import reduce

import torch
from torch import Tensor

from weber.adapters.factors import Factors
from weber.families.pairing import swap_halves


def build_fused(parts: Sequence[Factors | None], rows: Sequence[int], *, swapped: bool = False) -> Factors:
    """One change of a layer whose rows are those of `parts`, `rows` of each; None: those rows stay as they are.

    Parts that were cut from one layer have its `down` in common: equal rows of it are there once. Alpha is that of the parts' scale where
    they have one and fp32 can hold it; else it is the rank, and the scales are in `up`.
    """
    there = [part for part in parts if part is not None]
    down, places = _stack([part.down for part in there])
    scales = {Fraction(part.alpha) / part.rank for part in there}
    alpha = len(down) * min(scales)
    if len(scales) > 1 or torch.tensor(float(alpha)).item() != alpha:
        baked = [part if part is None else part.build_baked() for part in parts]
        return build_fused(baked, rows, swapped=swapped)
    up = torch.zeros(sum(rows), len(down), dtype=reduce(torch.promote_types, (part.up.dtype for part in there)))
    row, columns = 0, iter(places)
    for part, num_rows in zip(parts, rows, strict=True):
        if part is not None:
            up[row : row + num_rows, next(columns)] = part.up.to(up)
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


def _stack(downs: Sequence[Tensor]) -> tuple[Tensor, list[list[int]]]:
    """The rows of all of them, those that several have in common once; and where the rows of each are."""
    stacked = torch.cat(list(downs)).cpu()
    texts = iter(row.tobytes() for row in stacked.contiguous().view(torch.uint8).numpy())
    numbers: dict[tuple[bytes, int], int] = {}
    kept: list[int] = []
    places, start = [], 0
    for down in downs:
        seen: Counter[bytes] = Counter()
        place = []
        for row in range(start, start + len(down)):
            text = next(texts)
            number = numbers.setdefault((text, seen[text]), len(kept))
            seen[text] += 1  # a part may have a row twice
            if number == len(kept):
                kept.append(row)
            place.append(number)
        places.append(place)
        start += len(down)
    return stacked[kept], places
