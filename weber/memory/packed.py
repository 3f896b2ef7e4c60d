"""A frozen linear layer whose weight is stored with few bits, and read anew for the forward pass and for the backward pass.

The graph keeps the packed weight and nothing else: not the input, which a frozen layer does not need, and no copy of the weight.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from functools import partial
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional

from weber.blocks.layer import Layer, Readable
from weber.memory.formats import FORMATS, Format
from weber.memory.products import LEAST_ROWS, PRODUCTS, multiply_packed


class PackedLinear(nn.Linear, Readable):
    """A frozen linear layer, from the tensors that `Format.pack` gave for its weight (out_features, in_features).

    The packed tensors are buffers. `to(dtype)` leaves them as they are: it changes `dtype`, in which `weight` is given and the bias kept.
    The product is computed in the dtype of the input. With `multiplies_packed` (int8 and fp8) inputs of 17 rows or more are rounded to 8
    bits per row and multiplied with the packed weight, their gradients too; fewer rows, which no GPU multiplies so, as without it.
    """

    _layer: Layer | None = None

    def __init__(
        self,
        tensors: Mapping[str, Tensor],
        bias: Tensor | None,
        *,
        shape: tuple[int, int],
        format: Format,
        dtype: torch.dtype,
        multiplies_packed: bool = False,
    ) -> None:
        nn.Module.__init__(self)  # that of nn.Linear would make a weight
        assert format.name in PRODUCTS or not multiplies_packed
        self.out_features, self.in_features = shape
        self.format, self.dtype, self.multiplies_packed = format, dtype, multiplies_packed
        for name, (size, kind) in format.packed_shapes(*shape).items():
            assert tensors[name].shape == size and tensors[name].dtype == kind
            self.register_buffer(name, tensors[name])
        self.register_parameter("bias", None if bias is None else nn.Parameter(bias.detach().to(dtype), requires_grad=False))

    @property
    def weight(self) -> Tensor:  # type: ignore[override]
        """A fresh copy of the weight in `dtype`; writing to it changes nothing."""
        return self.dequantize()

    @property
    def W_q(self) -> Tensor:
        """The packed weight, under the name at which PEFT looks to learn a layer's device: some 20 times for every adapter."""
        return self.get_buffer("packed")

    def dequantize(self) -> Tensor:
        """The same as `weight`: what PEFT calls where there is a `W_q`."""
        tensors = dict(self.named_buffers(recurse=False))
        return self.format.unpack(tensors, shape=(self.out_features, self.in_features), dtype=self.dtype)

    def forward(self, input: Tensor) -> Tensor:
        """Inputs (..., in_features) of any float dtype to (..., out_features)."""
        shape = (self.out_features, self.in_features)
        result: Tensor = _Product.apply(input, self.bias, self.format.name, shape, self.multiplies_packed, *self._buffers.values())  # type: ignore[no-untyped-call]
        return result

    def read_layer(self) -> Layer | None:
        """See `Readable`."""
        weights, known = tuple(self.buffers(recurse=False)), self._layer
        is_same = known is not None and known.dtype == self.dtype and known.bias is self.bias
        if known is None or not is_same or any(one is not other for one, other in zip(weights, known.weights, strict=True)):
            unpack = partial(_unpack, self.format.name, (self.out_features, self.in_features))
            product = PRODUCTS[self.format.name] if self.multiplies_packed else None
            known = self._layer = Layer(self.out_features, self.dtype, weights, self.bias, unpack=unpack, product=product)
        return known

    def reset_parameters(self) -> None:
        """Nothing: the weight is given."""

    def extra_repr(self) -> str:
        """See `nn.Module`."""
        more = ", multiplies_packed" if self.multiplies_packed else ""
        return f"{super().extra_repr()}, format={self.format.name}, dtype={self.dtype}{more}"

    def _apply(self, fn: Callable[[Tensor], Tensor], recurse: bool = True) -> PackedLinear:
        """Move the packed tensors as bytes, so that no `to(dtype)` sees a number in them."""
        dtypes = {name: tensor.dtype for name, tensor in self.named_buffers(recurse=False)}
        self._view_buffers(dict.fromkeys(dtypes, torch.uint8))
        try:
            super()._apply(fn, recurse)  # type: ignore[no-untyped-call]
        finally:
            self._view_buffers(dtypes)
        self.dtype = fn(torch.empty(0, dtype=self.dtype, device=self.W_q.device)).dtype
        return self

    def _view_buffers(self, dtypes: Mapping[str, torch.dtype]) -> None:
        self._buffers.update({name: self.get_buffer(name).view(dtype) for name, dtype in dtypes.items()})


def build_packed(
    weight: Tensor, bias: Tensor | None, *, format: Format, dtype: torch.dtype | None = None, multiplies_packed: bool = False
) -> PackedLinear:
    """A packed layer from a weight (out, in) of any float dtype, on its device; `dtype` is the weight's if it is left out."""
    num_out, num_in = weight.shape
    return PackedLinear(
        format.pack(weight), bias, shape=(num_out, num_in), format=format, dtype=dtype or weight.dtype, multiplies_packed=multiplies_packed
    )


class _Product(torch.autograd.Function):
    """x @ weight.T + bias."""

    @staticmethod
    def forward(ctx: Any, *inputs: Any) -> Tensor:
        # Named one by one, two packed tensors would be as many arguments as names: dynamo then leaves `ctx` out.
        x, bias, name, shape, multiplies_packed, *packed = inputs
        ctx.save_for_backward(*packed)
        ctx.layer = name, shape, multiplies_packed
        if bias is not None:
            bias = bias.to(x.dtype)
        if multiplies_packed and _count_rows(x) >= LEAST_ROWS:
            weight, scale = packed
            return multiply_packed(x, weight.t(), form=name, column_scale=scale, bias=bias)
        return functional.linear(x, _unpack(name, shape, tuple(packed), x.dtype), bias)

    @staticmethod
    def backward(ctx: Any, gradient: Tensor) -> tuple[Tensor | None, ...]:
        name, shape, multiplies_packed = ctx.layer
        packed = ctx.saved_tensors
        if multiplies_packed and _count_rows(gradient) >= LEAST_ROWS:
            weight, scale = packed
            # The scales of the weight's rows go into the first factor, and are gone when that is rounded.
            factor = weight.t().contiguous().t()
            x_gradient = multiply_packed(gradient, factor, form=name, row_factor=scale)
        else:
            x_gradient = gradient @ _unpack(name, shape, packed, gradient.dtype)
        return x_gradient, None, None, None, None, *(None for _ in packed)


def _unpack(name: str, shape: tuple[int, int], packed: tuple[Tensor, ...], dtype: torch.dtype) -> Tensor:
    layout = FORMATS[name]
    return layout.unpack(dict(zip(layout.packed_shapes(*shape), packed, strict=True)), shape=shape, dtype=dtype)


def _count_rows(x: Tensor) -> int:
    return x.shape[:-1].numel()
