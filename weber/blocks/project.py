"""The way into a block's layers: norm, modulation, and linear layers beside each other, as one step of the backward pass.

Of it all is kept the input, as it is, and what the A's of adapters made of it. In the backward pass the modulated input is not made again
for adapters, whose gradients follow from the input itself:

    A's gradient = h^T n,  n = (x - mean) rstd (1 + scale) + shift
                 = ((rstd h)^T x - (rstd h)^T mean) (1 + scale) + (sum of h) shift

Legend: B batch, S tokens, D width, N = B S rows, R sum of ranks, O sum of outputs.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import Any

import torch
from torch import Tensor
from torch.autograd.function import once_differentiable

from weber.blocks.layer import Layer
from weber.blocks.linear import add_product, join_factors, join_rows, join_weights, list_places, list_ranks, multiply, multiply_exactly, run_terms_back
from weber.kernels.modulate import modulate, modulate_backward, sum_gradients


def project(
    x_BSD: Tensor, scale: Tensor, shift: Tensor, layers: Sequence[Layer], *, widths: Sequence[int], eps: float
) -> tuple[Tensor, ...]:
    """x itself, for whoever needs it beside the layers; then the layers' outputs beside each other, cut into pieces of these widths.

    scale and shift: (B or 1, S or 1, D).
    """
    tensors = [tensor for layer in layers for tensor in layer.list_tensors()]
    outputs: tuple[Tensor, ...] = _Project.apply(x_BSD, scale, shift, layers, widths, eps, *tensors)  # type: ignore[no-untyped-call]
    return outputs


class _Project(torch.autograd.Function):
    @staticmethod
    def forward(
        ctx: Any, x: Tensor, scale: Tensor, shift: Tensor, layers: Sequence[Layer], widths: Sequence[int], eps: float, *tensors: Tensor
    ) -> tuple[Tensor, ...]:
        normed, mean, rstd = modulate(x, scale, shift, eps)
        out, hidden = multiply(normed.flatten(0, 1), layers)
        ctx.save_for_backward(x, scale, shift, mean, rstd, hidden, *tensors)
        ctx.layers, ctx.eps = layers, eps
        return x, *out.view(*x.shape[:-1], out.shape[-1]).split(list(widths), dim=-1)

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, residual: Tensor, *grads: Tensor) -> tuple[Tensor | None, ...]:
        x, scale, shift, mean, rstd, hidden, *tensors = ctx.saved_tensors
        wants_x, wants_scale, _, _, _, _, *wanted = ctx.needs_input_grad
        stored = iter(tensors)
        layers = [layer.replace_tensors(stored) for layer in ctx.layers]
        back = _Back(layers, [grad.flatten(0, 1) for grad in grads], wanted)

        hidden_grad = back.run_terms(hidden)
        if hidden_grad is not None and back.wants_downs:
            back.add_downs(sum_down_gradients(hidden_grad, x, scale, shift, mean, rstd, eps=ctx.eps))
        if back.wants_weights:
            back.run_weights(modulate(x, scale, shift, ctx.eps)[0].flatten(0, 1))
        scale_grad = shift_grad = x_grad = None
        if wants_x or wants_scale:
            normed_grad = back.run_input(hidden_grad).view(x.shape)
            if wants_scale:
                scale_grad, shift_grad = sum_gradients(normed_grad, x, mean, rstd, like=scale)
            if wants_x:
                x_grad = modulate_backward(normed_grad, x, scale, mean, rstd, residual)
        return x_grad, scale_grad, shift_grad, None, None, None, *back.list_gradients()


class _Back:
    """The backward pass of layers beside each other. `grads`: of their outputs (N, O), cut somewhere; `wanted`: of each of their tensors."""

    def __init__(self, layers: Sequence[Layer], grads: Sequence[Tensor], wanted: Sequence[bool]) -> None:
        self.layers, self.grads = layers, grads
        flags = iter(wanted)
        self._wanted = [[next(flags) for _ in layer.list_tensors()] for layer in layers]
        self._found: list[list[Tensor | None]] = [[None] * len(one) for one in self._wanted]
        self._places = list_places(layers)
        self._bounds = [0]
        for grad in grads:
            self._bounds.append(self._bounds[-1] + grad.shape[1])

    @property
    def wants_downs(self) -> bool:
        """Whether any A learns."""
        return any(flags[self._find_term(layer)] for layer, flags in zip(self.layers, self._wanted, strict=True) if layer.terms)

    @property
    def wants_weights(self) -> bool:
        """Whether the layers themselves learn, or their biases."""
        return any(any(flags[: self._find_term(layer)]) for layer, flags in zip(self.layers, self._wanted, strict=True))

    def run_terms(self, hidden: Tensor | None) -> Tensor | None:
        """The gradient of the hidden tensor (N, R); B's gradients are noted."""
        if hidden is None:
            return None
        hidden_grad = torch.empty_like(hidden)
        for layer, ranks, flags, found, place in zip(
            self.layers, list_ranks(self.layers), self._wanted, self._found, self._places, strict=True
        ):
            first = self._find_term(layer)
            wants = flags[first + 1 :: 2]
            found[first + 1 :: 2] = run_terms_back(layer, self._cut(place), hidden, ranks, hidden_grad, wants)
        return hidden_grad

    def add_downs(self, grad: Tensor) -> None:
        """Note A's gradients, given below each other (R, D) in fp32."""
        for layer, ranks, flags, found in zip(self.layers, list_ranks(self.layers), self._wanted, self._found, strict=True):
            first = self._find_term(layer)
            for number, (term, rank) in enumerate(zip(layer.terms, ranks, strict=True)):
                if flags[first + 2 * number]:
                    found[first + 2 * number] = grad[rank].to(term.down.dtype)

    def run_weights(self, rows: Tensor) -> None:
        """Note the gradients of weights and biases, from the layers' input (N, D)."""
        whole = rows.new_empty((self._bounds[-1], rows.shape[1]))
        for start, grad in zip(self._bounds, self.grads, strict=False):
            torch.mm(grad.t(), rows, out=whole[start : start + grad.shape[1]])
        for layer, flags, found, place in zip(self.layers, self._wanted, self._found, self._places, strict=True):
            if flags[0]:
                found[0] = whole[place].to(layer.weights[0].dtype)
            if layer.bias is not None and flags[len(layer.weights)]:
                found[len(layer.weights)] = join_rows([grad.sum(0) for grad, _ in self._cut(place)]).to(layer.bias.dtype)

    def run_input(self, hidden_grad: Tensor | None) -> Tensor:
        """The gradient of the layers' input (N, D)."""
        dtype = self.grads[0].dtype
        downs = join_factors(self.layers, dtype)
        total = None if hidden_grad is None or downs is None else hidden_grad @ downs
        for grad, factor in self._list_factors(dtype):
            total = grad @ factor if total is None else add_product(total, grad, factor)
        assert total is not None
        return total

    def _list_factors(self, dtype: torch.dtype) -> Iterator[tuple[Tensor, Tensor]]:
        """Pieces of the output's gradient, with the rows of the weights that made them; unpacked one by one."""
        joined = join_weights(self.layers)
        if joined is not None:
            for start, grad in zip(self._bounds, self.grads, strict=False):
                yield grad, joined[start : start + grad.shape[1]]
            return
        for layer, place in zip(self.layers, self._places, strict=True):
            weight = layer.build_weight(dtype)
            for grad, rows in self._cut(place):
                yield grad, weight[rows]

    def list_gradients(self) -> list[Tensor | None]:
        """Of all tensors, in their order."""
        return [grad for found in self._found for grad in found]

    def _find_term(self, layer: Layer) -> int:
        return len(layer.weights) + (layer.bias is not None)

    def _cut(self, place: slice) -> list[tuple[Tensor, slice]]:
        """Of the output's gradient what is a layer's, with its rows of the layer's weight."""
        pieces = []
        for start, grad in zip(self._bounds, self.grads, strict=False):
            first, last = max(start, place.start), min(start + grad.shape[1], place.stop)
            if first < last:
                pieces.append((grad[:, first - start : last - start], slice(first - place.start, last - place.start)))
        return pieces


def sum_down_gradients(
    hidden_grad: Tensor, x_BSD: Tensor, scale: Tensor, shift: Tensor, mean: Tensor, rstd: Tensor, *, eps: float
) -> Tensor:
    """A's gradients (R, D) in fp32 from the gradient (N, R) of what they made of the modulated input."""
    batch, tokens, width = x_BSD.shape
    if scale.shape[1] != 1:
        return multiply_exactly(hidden_grad.t(), modulate(x_BSD, scale, shift, eps)[0].flatten(0, 1))
    grads = []
    for number, hidden_SR in enumerate(hidden_grad.view(batch, tokens, hidden_grad.shape[-1])):
        own = number % len(scale)
        scaled_SR = (hidden_SR * rstd[number]).to(x_BSD.dtype)
        grad = multiply_exactly(scaled_SR.t(), x_BSD[number])
        grad -= scaled_SR.float().t() @ mean[number]
        grad *= 1 + scale[own]
        grads.append(grad.addr_(hidden_SR.sum(0, dtype=torch.float32), shift[own, 0].float()))
    return grads[0] if batch == 1 else torch.stack(grads).sum(0)
