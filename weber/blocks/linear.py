"""Linear layers beside each other, with the same rows as input or with the same rows as output, and their backward pass.

What adapters add is written first, and the large products are added to it: a product adds to what is there at no cost, while reading and
writing the output once more to add something small would cost as much as an activation does.

Legend: N rows, O outputs, I inputs, R rank.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from itertools import accumulate, pairwise

import torch
from torch import Tensor

from weber.blocks.layer import Layer


def list_places(layers: Sequence[Layer]) -> list[slice]:
    """Which columns of a common output are whose."""
    return _cut(layer.num_outputs for layer in layers)


def list_ranks(layers: Sequence[Layer]) -> list[list[slice]]:
    """Which columns of a common hidden tensor are those of each layer's terms."""
    places = iter(_cut(len(term.down) for layer in layers for term in layer.terms))
    return [[next(places) for _ in layer.terms] for layer in layers]


def _cut(sizes: Iterator[int] | Sequence[int]) -> list[slice]:
    return [slice(start, stop) for start, stop in pairwise(accumulate(sizes, initial=0))]


def join(tensors: Sequence[Tensor]) -> Tensor | None:
    """One tensor (sum of rows, ...) over the memory of several that lie behind each other; None where they do not."""
    first, *rest = tensors
    end = first.storage_offset() + first.numel()
    storage = first.untyped_storage()._cdata
    for one in rest:
        if one.untyped_storage()._cdata != storage or one.storage_offset() != end or not one.is_contiguous():
            return None
        end += one.numel()
    if not rest:
        return first
    return first.as_strided((sum(len(one) for one in tensors), *first.shape[1:]), first.stride(), first.storage_offset())


def join_factors(layers: Sequence[Layer], dtype: torch.dtype) -> Tensor | None:
    """All A's (sum of R, I), in the precision of the products."""
    downs = [term.down for layer in layers for term in layer.terms]
    if not downs:
        return None
    joined = join(downs)
    return (torch.cat(downs) if joined is None else joined).to(dtype)


def multiply(rows: Tensor, layers: Sequence[Layer]) -> tuple[Tensor, Tensor | None]:
    """(N, I) to (N, sum of O), and what the A's make of the rows, (N, sum of R)."""
    downs = join_factors(layers, rows.dtype)
    hidden = None if downs is None else torch.mm(rows, downs.t())
    out = rows.new_empty((len(rows), sum(layer.num_outputs for layer in layers)))
    joined = join_weights(layers)
    if joined is not None and hidden is None and not any(layer.bias is None for layer in layers):
        biases = [layer.bias.to(out.dtype) for layer in layers if layer.bias is not None]
        torch.addmm(join_rows(biases), rows, joined.t(), out=out)
        return out, None
    for layer, place, ranks in zip(layers, list_places(layers), list_ranks(layers), strict=True):
        part = out[:, place]
        if joined is None or len(layers) == 1:
            add_layer(part, layer, [(rows, layer.build_weight(rows.dtype))], hidden, ranks)
        elif not start(part, layer, hidden, ranks):
            part.zero_()
    if joined is not None and len(layers) > 1:
        add_product(out, rows, joined.t())
    return out, hidden


def join_weights(layers: Sequence[Layer]) -> Tensor | None:
    """The weights of all layers as one; None where they are packed, or not behind each other in memory."""
    return join([layer.weights[0] for layer in layers]) if all(layer.unpack is None for layer in layers) else None


def add_layer(
    out: Tensor,
    layer: Layer,
    pieces: Sequence[tuple[Tensor, Tensor]],
    hidden: Tensor | None,
    ranks: Sequence[slice],
    *,
    is_begun: bool = False,
) -> None:
    """Write a layer's output to `out` (N, O), or add it where something is there already. `pieces`: rows with the columns of W for them."""
    begin = None
    if is_begun or layer.terms:
        is_begun = start(out, layer, hidden, ranks, is_begun=is_begun)
    else:
        begin = None if layer.bias is None else layer.bias.to(out.dtype)
    for rows, factor in pieces:
        if is_begun:
            add_product(out, rows, factor.t())
        elif begin is None:
            torch.mm(rows, factor.t(), out=out)
        else:
            torch.addmm(begin, rows, factor.t(), out=out)
        is_begun = True


def start(out: Tensor, layer: Layer, hidden: Tensor | None, ranks: Sequence[slice], *, is_begun: bool = False) -> bool:
    """Write bias and terms to the output (N, O), or add them where it has begun; whether there is anything now."""
    bias = None if layer.bias is None else layer.bias.to(out.dtype)
    if bias is not None and (is_begun or not layer.terms):
        out.add_(bias) if is_begun else out.copy_(bias)
        is_begun, bias = True, None
    for term, rank in zip(layer.terms, ranks, strict=True):
        assert hidden is not None
        up = term.up.to(out.dtype).t()
        if is_begun:
            add_product(out, hidden[:, rank], up, alpha=term.scale)
        elif bias is None:
            torch.addmm(out, hidden[:, rank], up, beta=0, alpha=term.scale, out=out)
        else:
            torch.addmm(bias, hidden[:, rank], up, alpha=term.scale, out=out)
        is_begun = True
    return is_begun


def add_product(total: Tensor, one: Tensor, other: Tensor, *, alpha: float = 1.0) -> Tensor:
    """total + alpha x one @ other, into `total`. Not `addmm_`, which PyTorch's counter of FLOPs does not know."""
    return torch.addmm(total, one, other, alpha=alpha, out=total)


def run_terms_back(
    layer: Layer, pieces: Sequence[tuple[Tensor, slice]], hidden: Tensor, ranks: Sequence[slice], out: Tensor, wanted: Sequence[bool]
) -> list[Tensor | None]:
    """Write the gradient of the layer's own columns of `hidden` into those of `out`; the gradients of its B's (O, R), where wanted.

    `pieces`: the gradient of the output (N, O), cut by its columns.
    """
    grads: list[Tensor | None] = []
    for term, rank, wants in zip(layer.terms, ranks, wanted, strict=True):
        for number, (grad, place) in enumerate(pieces):
            part = out[:, rank]
            torch.addmm(part, grad, term.up[place].to(grad.dtype), beta=float(number > 0), alpha=term.scale, out=part)
        ups = [multiply_exactly(grad.t(), hidden[:, rank]) for grad, _ in pieces] if wants else []
        grads.append(join_rows(ups).mul_(term.scale).to(term.up.dtype) if wants else None)
    return grads


def join_rows(parts: Sequence[Tensor]) -> Tensor:
    """One below the other."""
    return parts[0] if len(parts) == 1 else torch.cat(list(parts))


def join_columns(parts: Sequence[Tensor]) -> Tensor:
    """One beside the other."""
    return parts[0] if len(parts) == 1 else torch.cat(list(parts), dim=1)


def multiply_exactly(one: Tensor, other: Tensor) -> Tensor:
    """A product in fp32 of factors of any precision: gradients of weights are not rounded before they are summed."""
    if one.dtype == torch.float32:
        return one @ other
    return (one @ other).float() if one.device.type == "cpu" else torch.mm(one, other, out_dtype=torch.float32)
