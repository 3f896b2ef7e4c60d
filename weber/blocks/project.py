"""The way into a block's layers: norm, modulation, and linear layers beside each other, as one step of the backward pass.

Of it all is kept the input, as it is, what the A's of adapters made of it, and where there is room for it, the modulated input; else it is
made again where something that learns needs it.

Legend: B batch, S tokens, D width, N = B S rows, R sum of ranks, O sum of outputs.
"""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor
from torch.autograd.function import once_differentiable

from weber.blocks.group import Group, multiply_exactly
from weber.kernels.modulate import modulate, modulate_backward, sum_gradients

_NUM_FIXED = 6  # inputs before the layers' tensors


def project(x_BSD: Tensor, scale: Tensor, *, shift: Tensor, group: Group, eps: float, keeps: bool) -> tuple[Tensor, ...]:
    """x itself, for whoever needs it beside the layers; then the segments of the layers' output.

    scale and shift: (B or 1, S or 1, D). `keeps`: the modulated input is kept, if anything that learns needs it.
    """
    outputs: tuple[Tensor, ...] = _Project.apply(x_BSD, scale, shift, group, eps, keeps, *group.list_tensors())  # type: ignore[no-untyped-call]
    return outputs


class _Project(torch.autograd.Function):
    @staticmethod
    def forward(
        ctx: Any, x: Tensor, scale: Tensor, shift: Tensor, group: Group, eps: float, keeps: bool, *tensors: Tensor
    ) -> tuple[Tensor, ...]:
        normed, mean, rstd = modulate(x, scale, shift, eps)
        out, hidden = group.multiply(normed.flatten(0, 1), tensors)
        keeps = keeps and any(ctx.needs_input_grad[_NUM_FIXED:])
        ctx.save_for_backward(x, scale, shift, mean, rstd, hidden, normed if keeps else None, *tensors)
        ctx.group, ctx.eps = group, eps
        return x, *out.view(*x.shape[:-1], group.num_outputs).split_with_sizes(group.widths, dim=-1)

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, residual: Tensor, *segments: Tensor) -> tuple[Tensor | None, ...]:
        x, scale, shift, mean, rstd, hidden, normed, *tensors = ctx.saved_tensors
        group: Group = ctx.group
        wants_x, wants_scale, *_ = ctx.needs_input_grad
        wanted: tuple[bool, ...] = ctx.needs_input_grad[_NUM_FIXED:]
        found: list[Tensor | None] = [None] * len(tensors)
        grads = [grad.flatten(0, 1) for grad in segments]

        hidden_grad = None if hidden is None else group.run_terms(grads, hidden, tensors=tensors, wanted=wanted, found=found)
        wants_weights = any(wanted[part.weights.start] or (part.bias is not None and wanted[part.bias]) for part in group.parts)
        wants_downs = hidden_grad is not None and any(wanted[term.down] for term in group.terms)
        if wants_weights or wants_downs:
            normed = modulate(x, scale, shift, ctx.eps)[0] if normed is None else normed
        if hidden_grad is not None and wants_downs:
            downs = multiply_exactly(hidden_grad.t(), normed.flatten(0, 1))
            for term in group.terms:
                found[term.down] = downs[term.rank].to(tensors[term.down].dtype) if wanted[term.down] else None
        if wants_weights:
            group.run_weights(grads, normed.flatten(0, 1), tensors=tensors, wanted=wanted, found=found)

        x_grad = scale_grad = shift_grad = None
        if wants_x or wants_scale:
            normed_grad = group.run_input(grads, hidden_grad, tensors=tensors).view(x.shape)
            if wants_scale:
                scale_grad, shift_grad = sum_gradients(normed_grad, x, mean, rstd, like=scale)
            if wants_x:
                x_grad = modulate_backward(normed_grad, x, scale, mean, rstd, residual)
        return x_grad, scale_grad, shift_grad, None, None, None, *found
