"""Linear layers beside each other, with the same rows as input, and their backward pass.

What adapters add is written first, and the large products are added to it: a product adds to what is there at no cost, while reading and
writing the output once more to add something small would cost as much as an activation does.

A layer does the same with adapters and without: one that adds nothing changes no bit.

Where what lies is found once for each block, not in each step. Products of weights are those of `kernels/product.py`; others are added by
`addmm` with `out`: PyTorch's counter of FLOPs does not know `addmm_`.

Legend: N rows, O outputs, I inputs, R rank.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from itertools import accumulate, pairwise

import torch
from torch import Tensor

from weber.blocks.factor import ALL, Dense, Factor, Packed, Rows
from weber.blocks.layer import EightBits, Layer, Unpack
from weber.kernels.lowrank import gather, join_ups, spread
from weber.kernels.product import multiply, multiply_columns

Tensors = Sequence[Tensor]
"""Those of a group's layers, in the order of `Group.list_tensors`."""


@dataclass(frozen=True)
class Term:
    """What an adapter adds to a layer: places of A and B among the tensors, and of what A makes of the rows in the hidden tensor.

    `copies`: A and B as products take them.
    """

    scale: float
    down: int
    up: int
    rank: slice
    copies: tuple[Tensor, Tensor]


@dataclass(frozen=True)
class Piece:
    """A part of a layer's output: which segment of the output's gradient it is in, which columns there, and which rows of the weight."""

    segment: int
    columns: slice
    rows: slice


@dataclass(frozen=True)
class Part:
    """A layer of a group: its columns of the output, and places of its tensors."""

    columns: slice
    weights: slice
    bias: int | None
    terms: tuple[Term, ...]
    pieces: tuple[Piece, ...]
    unpack: Unpack | None
    product: EightBits | None

    def build_factor(self, tensors: Tensors, rows: Tensor) -> Factor:
        """W (O, I) for a product with those rows; unpacked anew for whoever asks."""
        weights = tensors[self.weights]
        if self.product is not None and len(rows) >= self.product.least_rows:
            return Packed(self.product, *weights)
        return Dense(weights[0] if self.unpack is None else self.unpack(tuple(weights), rows.dtype))


class Group:
    """Layers with the same input. `widths`: how their common output is cut into segments, whose gradients come apart."""

    def __init__(self, layers: Sequence[Layer], widths: Sequence[int] | None = None) -> None:
        self.layers = layers
        columns = cut(layer.num_outputs for layer in layers)
        self.num_outputs = columns[-1].stop
        self.widths = [self.num_outputs] if widths is None else list(widths)
        self.segments = cut(self.widths)
        ranks = iter(cut(len(term.down) for layer in layers for term in layer.terms))
        parts, end = [], 0
        for layer, place in zip(layers, columns, strict=True):
            weights = slice(end, end + len(layer.weights))
            bias = None if layer.bias is None else weights.stop
            end = weights.stop + (bias is not None)
            terms = []
            for term in layer.terms:
                assert term.copies is not None, "masters.py builds them"
                terms.append(Term(term.scale, end, end + 1, next(ranks), term.copies))
                end += 2
            parts.append(Part(place, weights, bias, tuple(terms), self._find_pieces(place), layer.unpack, layer.product))
        self.parts = parts
        self.terms = [term for part in parts for term in part.terms]
        self.num_ranks = self.terms[-1].rank.stop if self.terms else 0
        self.num_tensors = end
        learns = {id(term.copies): term.down.requires_grad for layer in layers for term in layer.terms}
        kinds = [[term for term in self.terms if learns[id(term.copies)] is one] for one in (False, True)]
        self.kinds = [kind for kind in kinds if kind]
        """Terms that are frozen, and those that learn: a product's last bits may depend on how many columns it has, and what is frozen
        gives the same with and without the others."""
        self._downs = [term.copies[0] for term in self.terms]
        self._joined_downs = join(self._downs) if self.terms else None
        self._is_dense = all(part.unpack is None for part in parts)

    def list_tensors(self) -> list[Tensor]:
        """Weights, bias, and A and B of each term, layer by layer."""
        return [tensor for layer in self.layers for tensor in layer.list_tensors()]

    def _find_pieces(self, place: slice) -> tuple[Piece, ...]:
        pieces = []
        for number, segment in enumerate(self.segments):
            first, last = max(segment.start, place.start), min(segment.stop, place.stop)
            if first < last:
                columns = slice(first - segment.start, last - segment.start)
                pieces.append(Piece(number, columns, slice(first - place.start, last - place.start)))
        return tuple(pieces)

    def multiply(self, rows: Tensor, tensors: Tensors) -> tuple[Tensor, Tensor | None]:
        """(N, I) to (N, O) of all layers, and what the A's make of the rows, (N, R)."""
        hidden = self.find_hidden([(rows, ALL)])
        out = rows.new_empty((len(rows), self.num_outputs))
        joined = self._join_weights(tensors)
        if joined is None or len(self.parts) == 1:
            seen = Rows(rows)
            for part in self.parts:
                own = out if len(self.parts) == 1 else out[:, part.columns]
                is_begun = write_start(own, part, tensors=tensors, hidden=hidden)
                made = part.build_factor(tensors, rows).add(own, seen, is_begun=is_begun)
                if len(self.parts) == 1:
                    return made, hidden
                if made is not own:
                    own.copy_(made)
            return out, hidden
        if hidden is not None and out.device.type != "cpu":
            ups, scales, starts = self._list_ups(tensors)
            spread(hidden, ups, [None if part.bias is None else tensors[part.bias] for part in self.parts], scales, starts, out)
            return multiply(rows, joined.t(), out), hidden
        for part in self.parts:
            own = out[:, part.columns]
            if not write_start(own, part, tensors=tensors, hidden=hidden):
                own.zero_()
        return multiply(rows, joined.t(), out), hidden

    def find_hidden(self, pieces: Sequence[tuple[Tensor, slice]]) -> Tensor | None:
        """What the A's make of the rows, (N, R); None where there are none. `pieces`: rows, each with its columns of A."""
        found = [self._multiply_downs(pieces, kind) for kind in self.kinds]
        if len(found) < 2:
            return found[0] if found else None
        hidden = found[0].new_empty((len(found[0]), self.num_ranks))
        for kind, one in zip(self.kinds, found, strict=True):
            for term, part in zip(kind, one.split_with_sizes([term.rank.stop - term.rank.start for term in kind], dim=1), strict=True):
                hidden[:, term.rank].copy_(part)
        return hidden

    def _multiply_downs(self, pieces: Sequence[tuple[Tensor, slice]], kind: Sequence[Term]) -> Tensor:
        (first, columns), *rest = pieces
        is_all = len(kind) == len(self.terms)
        downs = self.join_downs(first.dtype) if is_all else _cast(torch.cat([term.copies[0] for term in kind]), first.dtype)
        hidden = torch.mm(first, downs[:, columns].t() if rest else downs.t())
        for rows, columns in rest:
            torch.addmm(hidden, rows, downs[:, columns].t(), out=hidden)
        return hidden

    def run_terms(
        self, grads: Tensors, hidden: Tensor, *, tensors: Tensors, wanted: Sequence[bool], found: list[Tensor | None]
    ) -> Tensor:
        """The gradient of the hidden tensor (N, R) from those of the output's segments; B's gradients, where wanted, go into `found`."""
        for part in self.parts:
            for term in part.terms:
                if wanted[term.up]:
                    seen = hidden[:, term.rank]
                    ups = [
                        multiply_exactly(grads[piece.segment][:, piece.columns].t(), seen, scale=term.scale) for piece in part.pieces
                    ]
                    found[term.up] = (ups[0] if len(ups) == 1 else torch.cat(ups)).to(tensors[term.up].dtype)
        if hidden.device.type != "cpu":
            return gather(list(grads), *self._list_ups(tensors))  # type: ignore[no-any-return]
        hidden_grad = torch.empty_like(hidden)
        for part in self.parts:
            for term in part.terms:
                up, own = _cast(term.copies[1], hidden.dtype), hidden_grad[:, term.rank]
                for number, piece in enumerate(part.pieces):
                    factor = up if len(part.pieces) == 1 else up[piece.rows]
                    torch.addmm(own, grads[piece.segment][:, piece.columns], factor, beta=float(number > 0), alpha=term.scale, out=own)
        return hidden_grad

    def run_weights(
        self, grads: Tensors, rows: Tensor, *, tensors: Tensors, wanted: Sequence[bool], found: list[Tensor | None]
    ) -> None:
        """The gradients of weights and biases, where wanted, go into `found`; `rows` (N, I) went in."""
        whole = rows.new_empty((self.num_outputs, rows.shape[1]))
        for segment, grad in zip(self.segments, grads, strict=True):
            multiply_columns(grad, rows, whole[segment])
        for part in self.parts:
            if wanted[part.weights.start]:
                found[part.weights.start] = whole[part.columns].to(tensors[part.weights.start].dtype)
            if part.bias is not None and wanted[part.bias]:
                sums = [grads[piece.segment][:, piece.columns].sum(0) for piece in part.pieces]
                found[part.bias] = torch.cat(sums).to(tensors[part.bias].dtype)

    def run_input(self, grads: Tensors, hidden_grad: Tensor | None, *, tensors: Tensors) -> Tensor:
        """The gradient of the rows (N, I)."""
        dtype = grads[0].dtype
        total = None if hidden_grad is None else torch.mm(hidden_grad, self.join_downs(dtype))
        joined = self._join_weights(tensors)
        if joined is not None:
            for segment, grad in zip(self.segments, grads, strict=True):
                factor = joined[segment] if len(grads) > 1 else joined
                total = multiply(grad, factor, total)
        else:
            for part in self.parts:
                weight = part.build_factor(tensors, grads[0])
                for piece in part.pieces:
                    total = weight.pass_back(Rows(grads[piece.segment][:, piece.columns]), total, rows=piece.rows)
        assert total is not None
        return total

    def _list_ups(self, tensors: Tensors) -> tuple[list[Tensor], list[float], list[int]]:
        """B's, scales and places in the hidden tensor, as `kernels/lowrank.py` takes them."""
        ups, scales, starts = list[Tensor](), list[float](), list[int]()
        for layer, part in zip(self.layers, self.parts, strict=True):
            if part.terms:
                up, scale = join_ups([term.copies[1] for term in part.terms], [term.scale for term in part.terms])
            else:
                up, scale = tensors[part.weights.start].new_empty((layer.num_outputs, 0)), 1.0
            ups.append(up)
            scales.append(scale)
            starts.append(part.terms[0].rank.start if part.terms else 0)
        return ups, scales, starts

    def join_downs(self, dtype: torch.dtype) -> Tensor:
        """All A's (R, I), in the precision of the products."""
        return _cast(torch.cat(self._downs) if self._joined_downs is None else self._joined_downs, dtype)

    def _join_weights(self, tensors: Tensors) -> Tensor | None:
        """The weights of all layers as one; None where they are packed, or not behind each other in memory."""
        return join([tensors[part.weights.start] for part in self.parts]) if self._is_dense else None


def _cast(tensor: Tensor, dtype: torch.dtype) -> Tensor:
    return tensor if tensor.dtype == dtype else tensor.to(dtype)


def cut(sizes: Iterable[int]) -> list[slice]:
    """Places of so many columns, one behind the other."""
    return [slice(start, stop) for start, stop in pairwise(accumulate(sizes, initial=0))]


def join(tensors: Tensors) -> Tensor | None:
    """One tensor (sum of rows, ...) over the memory of several that lie behind each other; None where they do not."""
    first = tensors[0]
    if len(tensors) == 1:
        return first
    end, storage, num_rows = first.storage_offset(), first.untyped_storage()._cdata, 0
    for one in tensors:
        if one.storage_offset() != end or one.untyped_storage()._cdata != storage or one.requires_grad != first.requires_grad:
            return None
        end += one.numel()
        num_rows += one.shape[0]
    return first.as_strided((num_rows, *first.shape[1:]), first.stride(), first.storage_offset())


def write_start(out: Tensor, part: Part, *, tensors: Tensors, hidden: Tensor | None, is_begun: bool = False) -> bool:
    """Write bias and terms to the output (N, O), or add them where it has begun; whether there is anything now."""
    bias = None if part.bias is None else tensors[part.bias]
    if bias is not None and bias.dtype != out.dtype:
        bias = bias.to(out.dtype)
    if bias is not None and (is_begun or not part.terms):
        out.add_(bias) if is_begun else out.copy_(bias)
        is_begun, bias = True, None
    for term in part.terms:
        assert hidden is not None
        own, up = hidden[:, term.rank], _cast(term.copies[1], out.dtype).t()
        if is_begun:
            torch.addmm(out, own, up, alpha=term.scale, out=out)
        elif bias is None:
            torch.addmm(out, own, up, beta=0, alpha=term.scale, out=out)
        else:
            torch.addmm(bias, own, up, alpha=term.scale, out=out)
        is_begun = True
    return is_begun


def multiply_exactly(one: Tensor, other: Tensor, *, scale: float = 1.0) -> Tensor:
    """A product in fp32 of factors of any precision: gradients of weights are not rounded before they are summed."""
    is_plain = one.dtype == torch.float32 or one.device.type == "cpu"
    product = (one @ other).float() if is_plain else torch.mm(one, other, out_dtype=torch.float32)
    return product if scale == 1 else product.mul_(scale)
