"""The way out of a block's layers: activation, linear layers, gate and residual, as one step of the backward pass.

    x + gate (sum of layers of their inputs)

Kept are the inputs as they come in; activations are made again in the backward pass, where adapters or weights need them. The layers'
sum is kept only where the gate learns.

Legend: B batch, S tokens, D width, N = B S rows, R sum of ranks.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor
from torch.autograd.function import once_differentiable

from weber.blocks.layer import Layer
from weber.blocks.linear import add_layer, add_product, join_columns, join_factors, list_ranks, multiply_exactly, run_terms_back
from weber.kernels.activate import Activation, activate, activate_backward


@dataclass(frozen=True)
class Summand:
    """A layer over inputs that lie beside each other: numbers of them."""

    layer: Layer
    inputs: tuple[int, ...]


def close(
    x_BSD: Tensor, gate: Tensor, inputs: Sequence[tuple[Tensor, Activation | None]], summands: Sequence[Summand]
) -> Tensor:
    """The block's tokens (B, S, D). gate: (B or 1, S or 1, D); inputs: (B, S, ...), each with what is done to it before its layer."""
    tensors = [tensor for summand in summands for tensor in summand.layer.list_tensors()]
    kinds = tuple(kind for _, kind in inputs)
    result: Tensor = _Close.apply(x_BSD, gate, kinds, summands, *(one for one, _ in inputs), *tensors)  # type: ignore[no-untyped-call]
    return result


class _Close(torch.autograd.Function):
    @staticmethod
    def forward(
        ctx: Any, x: Tensor, gate: Tensor, kinds: tuple[Activation | None, ...], summands: Sequence[Summand], *tensors: Tensor
    ) -> Tensor:
        rows = _build_rows(tensors[: len(kinds)], kinds)
        out = rows[0].new_empty((len(rows[0]), x.shape[-1]))
        hiddens = []
        for number, summand in enumerate(summands):
            pieces = _pair(summand, rows, summand.layer.build_weight(out.dtype))
            hidden = _find_hidden(summand, rows)
            add_layer(out, summand.layer, pieces, hidden, list_ranks([summand.layer])[0], is_begun=number > 0)
            hiddens.append(hidden)
        total, wants_gate = out.view(x.shape), ctx.needs_input_grad[1]
        ctx.save_for_backward(gate, total if wants_gate else None, *hiddens, *tensors)
        ctx.kinds, ctx.summands, ctx.widths = kinds, summands, [one.shape[1] for one in rows]
        return torch.addcmul(x, gate, total) if wants_gate else torch.addcmul(x, gate, total, out=total)

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, grad: Tensor) -> tuple[Tensor | None, ...]:
        kinds, summands = ctx.kinds, ctx.summands
        gate, total, *stored = ctx.saved_tensors
        hiddens, inputs = stored[: len(summands)], stored[len(summands) :][: len(kinds)]
        tensors, wanted = iter(stored[len(summands) + len(kinds) :]), iter(ctx.needs_input_grad[4 + len(kinds) :])
        gate_grad = (grad.float() * total).sum_to_size(gate.shape).to(gate.dtype) if ctx.needs_input_grad[1] else None

        out_grad = (grad * gate).flatten(0, 1)
        rows = _build_rows(inputs, kinds) if any(ctx.needs_input_grad[4 + len(kinds) :]) else None
        row_grads: list[Tensor | None] = [None] * len(kinds)
        found: list[Tensor | None] = []
        for summand, hidden in zip(summands, hiddens, strict=True):
            own = Summand(summand.layer.replace_tensors(tensors), summand.inputs)
            widths = [ctx.widths[number] for number in own.inputs]
            grads, found_here = _run_back(own, out_grad, hidden, rows, [next(wanted) for _ in own.layer.list_tensors()], widths)
            found += found_here
            for number, one in zip(own.inputs, grads, strict=True):
                row_grads[number] = one
        input_grads = [
            None if one is None else _leave(one.view(*tensor.shape[:-1], one.shape[-1]), tensor, kind)
            for one, tensor, kind in zip(row_grads, inputs, kinds, strict=True)
        ]
        return grad, gate_grad, None, None, *input_grads, *found


def _build_rows(inputs: Sequence[Tensor], kinds: Sequence[Activation | None]) -> list[Tensor]:
    return [(one if kind is None else activate(one, kind)).flatten(0, 1) for one, kind in zip(inputs, kinds, strict=True)]


def _leave(grad: Tensor, x: Tensor, kind: Activation | None) -> Tensor:
    """The gradient of an input from that of what its layer saw."""
    return grad if kind is None else activate_backward(grad, x, kind)


def _pair(summand: Summand, rows: Sequence[Tensor], factor: Tensor) -> list[tuple[Tensor, Tensor]]:
    """The layer's inputs, each with those columns of a factor (..., I) that belong to it."""
    own = [rows[number] for number in summand.inputs]
    parts = factor.split([one.shape[1] for one in own], dim=1) if len(own) > 1 else [factor]
    return list(zip(own, parts, strict=True))


def _find_hidden(summand: Summand, rows: Sequence[Tensor]) -> Tensor | None:
    """What the A's make of the rows, (N, R)."""
    downs = join_factors([summand.layer], rows[0].dtype)
    if downs is None:
        return None
    hidden: Tensor | None = None
    for one, part in _pair(summand, rows, downs):
        hidden = torch.mm(one, part.t()) if hidden is None else add_product(hidden, one, part.t())
    return hidden


def _run_back(
    summand: Summand, grad: Tensor, hidden: Tensor | None, rows: Sequence[Tensor] | None, wants: Sequence[bool], widths: Sequence[int]
) -> tuple[list[Tensor], list[Tensor | None]]:
    """The gradients of the rows that a layer saw, of these widths, and those of its tensors in their order."""
    layer, (ranks,) = summand.layer, list_ranks([summand.layer])
    first = len(layer.weights) + (layer.bias is not None)
    found: list[Tensor | None] = [None] * len(wants)
    own = [] if rows is None else [rows[number] for number in summand.inputs]
    if wants[0]:
        found[0] = join_columns([grad.t() @ one for one in own]).to(layer.weights[0].dtype)
    if layer.bias is not None and wants[first - 1]:
        found[first - 1] = grad.sum(0).to(layer.bias.dtype)
    factors = list(layer.build_weight(grad.dtype).split(list(widths), dim=1))
    downs, hidden_grad = join_factors([layer], grad.dtype), None
    if hidden is None or downs is None:
        return [grad @ factor for factor in factors], found
    hidden_grad = torch.empty_like(hidden)
    found[first + 1 :: 2] = run_terms_back(layer, [(grad, slice(None))], hidden, ranks, hidden_grad, wants[first + 1 :: 2])
    for number, (term, rank) in enumerate(zip(layer.terms, ranks, strict=True)):
        if wants[first + 2 * number]:
            part = hidden_grad[:, rank].t()
            found[first + 2 * number] = join_columns([multiply_exactly(part, one) for one in own]).to(term.down.dtype)
    return [add_product(hidden_grad @ down, grad, factor) for down, factor in zip(downs.split(list(widths), dim=1), factors, strict=True)], found
