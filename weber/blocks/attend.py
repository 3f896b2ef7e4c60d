"""Attention of a block over one stream of tokens or several: norm of queries and keys, rotation, attention.

Kept are the projections that come in, the output, one number per head and query, and where there is room for them, the rotated queries
and keys; else these are normed and rotated again in the backward pass.

Legend: B batch, S tokens of a stream, T tokens of all streams, H heads, d width of a head, D = H d.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor
from torch.autograd.function import once_differentiable

from weber.kernels.attention import attend as run_attention
from weber.kernels.attention import attend_backward
from weber.kernels.rotate import rotate, rotate_backward, sum_weight_gradients

Stream = tuple[Tensor, Tensor, Tensor]
"""Projections (B, S, 3 D) to queries, keys and values, and the weights (d,) of the norms of queries and keys."""

_NUM_FIXED = 4  # inputs before those of the streams


def attend(
    streams: Sequence[Stream], angles: Tensor, *, eps: float, keeps: bool, backend: str | None = None
) -> tuple[Tensor, ...]:
    """What each stream has seen, (B, S, D). `angles` (T, d/2): see `kernels/rotate.py`; streams lie behind each other.

    `keeps`: rotated queries and keys are kept. `backend`: of `kernels/attention.py`; left out: what the device has.
    """
    tensors = [tensor for one in streams for tensor in one]
    outputs: tuple[Tensor, ...] = _Attend.apply(angles, eps, keeps, backend, *tensors)  # type: ignore[no-untyped-call]
    return outputs


class _Attend(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, angles: Tensor, eps: float, keeps: bool, backend: str | None, *tensors: Tensor) -> tuple[Tensor, ...]:
        projections, weights = tensors[::3], _stack(tensors)
        joint = _prepare(projections, weights, angles, eps)
        query, key, value = _list_parts(joint, projections)
        output, *kept = run_attention(query, key, value, backend)
        ctx.places = [number for number, one in enumerate(kept) if isinstance(one, Tensor)]
        ctx.save_for_backward(angles, output, joint if keeps else None, *tensors, *(kept[number] for number in ctx.places))
        ctx.eps, ctx.backend, ctx.num_tensors = eps, backend, len(tensors)
        ctx.rest = [None if isinstance(one, Tensor) else one for one in kept]
        seen_BTD = output.transpose(1, 2).flatten(2)
        return (seen_BTD,) if len(projections) == 1 else seen_BTD.split([one.shape[1] for one in projections], dim=1)

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, *grads: Tensor) -> tuple[Tensor | None, ...]:
        angles, output, joint, *stored = ctx.saved_tensors
        tensors, kept = stored[: ctx.num_tensors], list(ctx.rest)
        for number, one in zip(ctx.places, stored[ctx.num_tensors :], strict=True):
            kept[number] = one
        projections, weights = tensors[::3], _stack(tensors)
        joint = _prepare(projections, weights, angles, ctx.eps) if joint is None else joint
        query, key, value = _list_parts(joint, projections)
        seen_shape = query.shape[0], query.shape[2], query.shape[1], query.shape[3]
        seen_grad = (grads[0] if len(grads) == 1 else torch.cat(grads, dim=1)).reshape(seen_shape).transpose(1, 2)
        grads_BHTd = attend_backward(seen_grad, query, key, value, (output, *kept), ctx.backend)
        found = [one.transpose(1, 2) for one in grads_BHTd]

        results: list[Tensor | None] = [None] * _NUM_FIXED
        end = 0
        for number, (one, pair) in enumerate(zip(projections, weights, strict=True)):
            tokens = slice(end, end + one.shape[1])
            end = tokens.stop
            own = found if len(projections) == 1 else [grad[:, tokens] for grad in found]
            turns = angles if len(projections) == 1 else angles[tokens]
            wants, *wants_weights = ctx.needs_input_grad[_NUM_FIXED + 3 * number :][:3]
            results.append(_run_back(one, pair, own, turns, ctx.eps) if wants else None)
            sums = sum_weight_gradients(own[0], own[1], _split(one, turns)[:, :, :2], turns, ctx.eps) if any(wants_weights) else None
            for place, wants_weight in enumerate(wants_weights):
                results.append(sums[place].to(tensors[3 * number + 1 + place].dtype) if sums is not None and wants_weight else None)
        return tuple(results)


def _stack(tensors: Sequence[Tensor]) -> list[Tensor]:
    """The weights (2, d) of each stream."""
    return [torch.stack(list(tensors[number + 1 : number + 3])) for number in range(0, len(tensors), 3)]


def _split(projections: Tensor, angles: Tensor) -> Tensor:
    """(B, S, 3, H, d)."""
    width = 2 * angles.shape[1]
    return projections.view(*projections.shape[:2], 3, projections.shape[2] // (3 * width), width)


def _prepare(projections: Sequence[Tensor], weights: Sequence[Tensor], angles: Tensor, eps: float) -> Tensor:
    """Queries, keys and, of several streams, values (B, T, 2 or 3, H, d). The values of a single stream stay where they are."""
    parts = [_split(one, angles) for one in projections]
    batch, tokens, _, heads, width = parts[0].shape
    if len(parts) == 1:
        joint = parts[0].new_empty((batch, tokens, 2, heads, width))
        rotate(parts[0][:, :, :2], weights[0], angles, eps, joint)
        return joint
    joint, end = parts[0].new_empty((batch, len(angles), 3, heads, width)), 0
    for part, pair in zip(parts, weights, strict=True):
        own = slice(end, end + part.shape[1])
        end = own.stop
        rotate(part[:, :, :2], pair, angles[own], eps, joint[:, own, :2])
        joint[:, own, 2].copy_(part[:, :, 2])
    return joint


def _list_parts(joint: Tensor, projections: Sequence[Tensor]) -> list[Tensor]:
    """Queries, keys and values (B, H, T, d)."""
    parts = list(joint.transpose(1, 3).unbind(2))
    if len(parts) == 2:
        batch, tokens, _, heads, width = joint.shape
        parts.append(projections[0].view(batch, tokens, 3, heads, width)[:, :, 2].transpose(1, 2))
    return parts


def _run_back(projections: Tensor, weights: Tensor, grads: Sequence[Tensor], angles: Tensor, eps: float) -> Tensor:
    """The gradient of the projections (B, S, 3 D) from those of the stream's own queries, keys and values (B, S, H, d)."""
    result = torch.empty(projections.shape, dtype=projections.dtype, device=projections.device)
    parts = _split(result, angles)
    rotate_backward(grads[0], grads[1], _split(projections, angles)[:, :, :2], weights, angles, eps, parts[:, :, :2])
    parts[:, :, 2].copy_(grads[2])
    return result
