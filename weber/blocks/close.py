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

from weber.blocks.factor import ALL, Rows
from weber.blocks.group import Group, cut, multiply_exactly, write_start
from weber.blocks.layer import Layer
from weber.kernels.activate import Activation, activate, activate_backward
from weber.kernels.product import multiply_columns

_NUM_FIXED = 3  # inputs before those of the layers
_Found = list[Tensor | None]


@dataclass(frozen=True)
class Summand:
    """A layer over inputs that lie beside each other: numbers of them, and which of the layer's columns each is."""

    group: Group
    inputs: tuple[int, ...]
    columns: tuple[slice, ...]


def build_summand(layer: Layer, inputs: Sequence[int], *, widths: Sequence[int]) -> Summand:
    """Inputs are numbers of those that `close` is given."""
    return Summand(Group([layer]), tuple(inputs), (ALL,) if len(inputs) == 1 else tuple(cut(widths)))


def close(
    x_BSD: Tensor, gate: Tensor, *, inputs: Sequence[Tensor], kinds: Sequence[Activation | None], summands: Sequence[Summand]
) -> Tensor:
    """The block's tokens (B, S, D). gate: (B or 1, S or 1, D); inputs: (B, S, ...), each with what is done to it before its layer."""
    tensors = [tensor for summand in summands for tensor in summand.group.list_tensors()]
    result: Tensor = _Close.apply(x_BSD, gate, (kinds, summands), *inputs, *tensors)  # type: ignore[no-untyped-call]
    return result


class _Close(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, x: Tensor, gate: Tensor, plan: Any, *given: Tensor) -> Tensor:
        kinds, summands = plan
        rows, end = _build_rows(given, kinds), len(kinds)
        out = rows[0].new_empty((len(rows[0]), x.shape[-1]))
        seen = [Rows(one) for one in rows]
        hiddens = []
        for number, summand in enumerate(summands):
            tensors, end = given[end : end + summand.group.num_tensors], end + summand.group.num_tensors
            (part,) = summand.group.parts
            places = list(zip(summand.inputs, summand.columns, strict=True))
            hidden = summand.group.find_hidden([(rows[one], columns) for one, columns in places])
            is_begun = write_start(out, part, tensors=tensors, hidden=hidden, is_begun=number > 0)
            factor = part.build_factor(tensors, out)
            for one, columns in places:
                out = factor.add(out, seen[one], columns=columns, is_begun=is_begun)
                is_begun = True
            hiddens.append(hidden)
        total, wants_gate = out.view(x.shape), ctx.needs_input_grad[1]
        ctx.save_for_backward(gate, total if wants_gate else None, *hiddens, *given)
        ctx.plan = plan
        return torch.addcmul(x, gate, total) if wants_gate else torch.addcmul(x, gate, total, out=total)

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, grad: Tensor) -> tuple[Tensor | None, ...]:
        kinds, summands = ctx.plan
        gate, total, *stored = ctx.saved_tensors
        hiddens, given = stored[: len(summands)], stored[len(summands) :]
        wanted, end = ctx.needs_input_grad[_NUM_FIXED:], len(kinds)
        gate_grad = (grad.float() * total).sum_to_size(gate.shape).to(gate.dtype) if ctx.needs_input_grad[1] else None

        out_grad = (grad * gate).flatten(0, 1)
        rows = _build_rows(given, kinds) if any(wanted[end:]) else []
        found: _Found = [None] * len(given)
        for summand, hidden in zip(summands, hiddens, strict=True):
            own = slice(end, end + summand.group.num_tensors)
            end = own.stop
            grads, found[own] = _run_back(summand, out_grad, hidden, rows, given[own], wanted[own])
            for number, one in zip(summand.inputs, grads, strict=True):
                one = one.view(*given[number].shape[:-1], one.shape[1])
                kind = kinds[number]
                found[number] = one if kind is None else activate_backward(one, given[number], kind)
        return grad, gate_grad, None, *found


def _build_rows(inputs: Sequence[Tensor], kinds: Sequence[Activation | None]) -> list[Tensor]:
    return [(one if kind is None else activate(one, kind)).flatten(0, 1) for one, kind in zip(inputs, kinds, strict=False)]


def _run_back(
    summand: Summand, grad: Tensor, hidden: Tensor | None, rows: Sequence[Tensor], tensors: Sequence[Tensor], wanted: Sequence[bool]
) -> tuple[list[Tensor], _Found]:
    """The gradients of the rows that a layer saw, and those of its tensors in their order."""
    group, (part,) = summand.group, summand.group.parts
    found: _Found = [None] * len(tensors)
    own = [rows[number] for number in summand.inputs] if rows else []
    if wanted[part.weights.start]:
        found[part.weights.start] = _join([multiply_columns(grad, one) for one in own]).to(tensors[part.weights.start].dtype)
    if part.bias is not None and wanted[part.bias]:
        found[part.bias] = grad.sum(0).to(tensors[part.bias].dtype)
    weight, out_grad = part.build_factor(tensors, grad), Rows(grad)
    if hidden is None:
        return [weight.pass_back(out_grad, None, columns=place) for place in summand.columns], found
    hidden_grad = group.run_terms([grad], hidden, tensors=tensors, wanted=wanted, found=found)
    for term in part.terms:
        if wanted[term.down]:
            down_grad = _join([multiply_exactly(hidden_grad[:, term.rank].t(), one) for one in own])
            found[term.down] = down_grad.to(tensors[term.down].dtype)
    downs = group.join_downs(grad.dtype)
    parts = [downs] if len(summand.inputs) == 1 else [downs[:, place] for place in summand.columns]
    totals = [torch.mm(hidden_grad, down) for down in parts]
    return [weight.pass_back(out_grad, total, columns=place) for total, place in zip(totals, summand.columns, strict=True)], found


def _join(parts: Sequence[Tensor]) -> Tensor:
    return parts[0] if len(parts) == 1 else torch.cat(list(parts), dim=1)
