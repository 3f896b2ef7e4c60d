"""Attention of a block over one stream of tokens or several: norm of queries and keys, rotation, attention.

Kept are the projections that come in, the output, and one number per head and query: queries and keys are normed and rotated again in
the backward pass.

Legend: B batch, S tokens of a stream, T tokens of all streams, H heads, d width of a head, D = H d.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor
from torch.autograd.function import once_differentiable

from weber.kernels.attention import attend as run_attention
from weber.kernels.attention import attend_backward
from weber.kernels.rotate import rotate, rotate_backward, sum_weight_gradients


@dataclass(frozen=True)
class Stream:
    """Projections (B, S, 3 D) to queries, keys and values, and the weights (d,) of the norms of queries and keys."""

    projections: Tensor
    query_weight: Tensor
    key_weight: Tensor


def attend(streams: Sequence[Stream], angles: Tensor, *, eps: float) -> tuple[Tensor, ...]:
    """What each stream has seen, (B, S, D). `angles` (T, d/2): see `kernels/rotate.py`; streams lie behind each other."""
    tensors = [tensor for one in streams for tensor in (one.projections, one.query_weight, one.key_weight)]
    outputs = _Attend.apply(angles, eps, *tensors)  # type: ignore[no-untyped-call]
    return outputs if isinstance(outputs, tuple) else (outputs,)


class _Attend(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, angles: Tensor, eps: float, *tensors: Tensor) -> tuple[Tensor, ...]:
        streams = _list_streams(tensors)
        query, key, value = _prepare(streams, angles, eps)
        output, *kept = run_attention(query, key, value)
        saved = [one for one in kept if isinstance(one, Tensor)]
        ctx.save_for_backward(angles, output, *tensors, *saved)
        ctx.eps, ctx.num_tensors = eps, len(tensors)
        ctx.rest = [None if isinstance(one, Tensor) else one for one in kept], [isinstance(one, Tensor) for one in kept]
        seen_BTD = output.transpose(1, 2).flatten(2)
        return tuple(seen_BTD.split([one.projections.shape[1] for one in streams], dim=1))

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, *grads: Tensor) -> tuple[Tensor | None, ...]:
        angles, output, *stored = ctx.saved_tensors
        tensors, saved = stored[: ctx.num_tensors], iter(stored[ctx.num_tensors :])
        kept = (output, *(next(saved) if is_tensor else one for one, is_tensor in zip(*ctx.rest, strict=True)))
        streams = _list_streams(tensors)
        query, key, value = _prepare(streams, angles, ctx.eps)
        seen_grad = (grads[0] if len(grads) == 1 else torch.cat(grads, dim=1)).unflatten(-1, (query.shape[1], -1)).transpose(1, 2)
        found = [one.transpose(1, 2) for one in attend_backward(seen_grad, query, key, value, kept)]

        results: list[Tensor | None] = [None, None]
        wanted = iter(ctx.needs_input_grad[2:])
        start = 0
        for stream in streams:
            tokens = slice(start, start + stream.projections.shape[1])
            start = tokens.stop
            own = [one[:, tokens] for one in found]
            wants_projections, *wants_weights = (next(wanted) for _ in range(3))
            results += [_run_back(stream, own, angles[tokens], ctx.eps) if wants_projections else None]
            weights = (stream.query_weight, stream.key_weight)
            grads_2d = _sum_weights(stream, own, angles[tokens], ctx.eps) if any(wants_weights) else None
            results += [
                None if grads_2d is None or not wants else grads_2d[number].to(weights[number].dtype)
                for number, wants in enumerate(wants_weights)
            ]
        return tuple(results)


def _list_streams(tensors: Sequence[Tensor]) -> list[Stream]:
    return [Stream(*tensors[number : number + 3]) for number in range(0, len(tensors), 3)]


def _split(projections: Tensor, width: int) -> Tensor:
    """(B, S, 3, H, d)."""
    return projections.unflatten(-1, (3, -1, width))


def _prepare(streams: Sequence[Stream], angles: Tensor, eps: float) -> tuple[Tensor, Tensor, Tensor]:
    """Queries, keys and values (B, H, T, d) of all streams. The values of a single stream stay where they are."""
    width = 2 * angles.shape[1]
    parts = [_split(one.projections, width) for one in streams]
    batch, _, _, heads, _ = parts[0].shape
    num_tokens = sum(part.shape[1] for part in parts)
    num_kinds = 2 if len(streams) == 1 else 3
    joint = parts[0].new_empty((batch, num_tokens, num_kinds, heads, width))
    start = 0
    for stream, part in zip(streams, parts, strict=True):
        tokens = slice(start, start + part.shape[1])
        start = tokens.stop
        weights = torch.stack([stream.query_weight, stream.key_weight])
        rotate(part[:, :, :2], weights, angles[tokens], eps, joint[:, tokens, :2])
        if num_kinds == 3:
            joint[:, tokens, 2].copy_(part[:, :, 2])
    query, key = joint[:, :, 0], joint[:, :, 1]
    value = joint[:, :, 2] if num_kinds == 3 else parts[0][:, :, 2]
    return query.transpose(1, 2), key.transpose(1, 2), value.transpose(1, 2)


def _run_back(stream: Stream, grads: Sequence[Tensor], angles: Tensor, eps: float) -> Tensor:
    """The gradient of the projections (B, S, 3 D) from those of the stream's own queries, keys and values (B, S, H, d)."""
    projections, width = stream.projections, 2 * angles.shape[1]
    result = torch.empty(projections.shape, dtype=projections.dtype, device=projections.device)
    weights = torch.stack([stream.query_weight, stream.key_weight])
    parts = _split(result, width)
    rotate_backward(*grads[:2], _split(projections, width)[:, :, :2], weights, angles, eps, parts[:, :, :2])
    parts[:, :, 2].copy_(grads[2])
    return result


def _sum_weights(stream: Stream, grads: Sequence[Tensor], angles: Tensor, eps: float) -> Tensor:
    return sum_weight_gradients(*grads[:2], _split(stream.projections, 2 * angles.shape[1])[:, :, :2], angles, eps)
