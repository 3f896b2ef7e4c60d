"""A LoRA layer that keeps nothing for the backward pass but its input as it is.

PEFT's own forward casts the input of a bf16 model to the fp32 of the adapter, and keeps that copy for every layer, and the product with A.
Here the input is kept by reference, so that layers with the same input share it, and the product, which costs next to nothing, is made
again. The numbers are PEFT's, bit for bit (tests/adapters/test_lowrank.py).

The adapter that comes first may be a DoRA (Liu et al. 2024): the changed weight's rows are then scaled to lengths that learn. PEFT finds
their present lengths by multiplying with a unit matrix of the input's width; here they are found without one, and the output is scaled
instead of the weight. Beside the output, one tensor of its size is kept.

Legend: B... any leading dimensions, I inputs, O outputs, R rank.
"""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import torch
from peft.tuners.lora import Linear
from torch import Tensor, nn
from torch.autograd.function import once_differentiable
from torch.nn import functional

from weber.blocks.layer import Layer, Readable, Term, read_layer

_NUM_STATES = 8
"""How many strengths of its adapters a layer remembers: a step may ask the model without them in between."""


class Lengths(nn.Module):
    """What a DoRA learns beside its factors: (O,) in fp32, the lengths of the rows of the changed weight."""

    def __init__(self, weight: Tensor) -> None:
        super().__init__()
        self.weight = nn.Parameter(weight)


class LowRank(Linear, Readable):
    """PEFT's LoRA of a linear layer with another forward; what is not plain, dropout for one, still goes through PEFT's.

    `given_back`: how much of what the adapter starts with the network has at strength 0 (`lora.py`). `is_exact`: it computes in the
    precision of its own weights, wherever it is.
    """

    given_back: float = 0.0
    is_exact: bool = False
    _base: Layer | None = None

    def __init__(self, *args: Any, **kwargs: Any) -> None:
        super().__init__(*args, **kwargs)
        self._layers: dict[tuple[tuple[str, ...], tuple[tuple[str, float], ...]], Layer | None] = {}

    def forward(self, x: Tensor, *args: Any, **kwargs: Any) -> Tensor:
        """What the base layer gives, and what the active adapters add, summed in the wider precision."""
        names = [name for name in self.active_adapters if name in self.lora_A]
        is_plain = not (args or kwargs or self.disable_adapters or self.merged or self.lora_variant) and len(names) > 0
        result: Tensor
        if is_plain and names[0] in self.lora_magnitude_vector:
            result = self._add(self._decompose(x, names[0]), x, names[1:])
        elif is_plain and all(isinstance(self.lora_dropout[name], nn.Identity) and not self.lora_bias[name] for name in names):
            result = self._add(self.base_layer(x), x, names)
        else:
            result = super().forward(x, *args, **kwargs)
        return result

    def read_layer(self) -> Layer | None:
        """See `Readable`: what it is when it is plain, the same object as long as nothing changes."""
        names = [] if self.disable_adapters else [name for name in self.active_adapters if name in self.lora_A]
        base = read_layer(self.base_layer, self._base)
        if base is not self._base or len(self._layers) > _NUM_STATES:
            self._base, self._layers = base, {}
        counted = [name for name in names if self._counts(name) and (self.scaling[name] != 0 or torch.is_grad_enabled())]
        state = tuple(names), tuple((name, self.scaling[name]) for name in counted)
        if state not in self._layers:
            is_plain = base is not None and not any(self._is_more(name) or self._is_finer(name, base) for name in names)
            self._layers[state] = self._add_terms(base, counted) if base is not None and is_plain else None
        return None if self.merged else self._layers[state]

    def _add_terms(self, base: Layer, names: list[str]) -> Layer:
        factors = [(self.scaling[name], self.lora_A[name].weight, self.lora_B[name].weight) for name in names]
        terms = tuple(Term(scale, down, up) for scale, down, up in factors if isinstance(down, Tensor) and isinstance(up, Tensor))
        return replace(base, terms=base.terms + terms)

    def read_strength(self, name: str) -> float:
        """How strongly an adapter takes part: what `set_scale` was given last, 1 before that and where alpha is 0."""
        whole = self.lora_alpha[name] / self.r[name]
        return float(self.scaling[name] / whole) if whole else 1.0

    @torch.no_grad()
    def measure_lengths(self, name: str, *, weight: Tensor | None = None, scale: float | None = None) -> Tensor:
        """Lengths (O,) in fp32 of the rows of the weight and what the adapter adds, at its own scale or another one.

        `weight` (O, I) stands for the base layer's where that is not in memory.
        """
        own = self.inner.weight if weight is None else weight
        down, up = self.lora_A[name].weight, self.lora_B[name].weight
        assert isinstance(down, Tensor) and isinstance(up, Tensor)
        scale = self.scaling[name] if scale is None else scale
        changed = torch.addmm(own.float(), up.float().to(own.device), down.float().to(own.device), alpha=scale)
        lengths: Tensor = torch.linalg.vector_norm(changed, dim=1)
        return lengths

    @property
    def inner(self) -> nn.Linear:
        """The layer itself."""
        inner = self.get_base_layer()
        assert isinstance(inner, nn.Linear)
        return inner

    def _add(self, base: Tensor, x: Tensor, names: list[str]) -> Tensor:
        """What adapters add to `base`. Frozen ones at strength 0 are left out, which changes no bit."""
        names = [name for name in names if self._counts(name)]
        if not names:
            return base
        factors = [one[name].weight for name in names for one in (self.lora_A, self.lora_B)]
        total: Tensor = _Sum.apply(base, x, [self.scaling[name] for name in names], *factors)  # type: ignore[no-untyped-call]
        return total

    def _counts(self, name: str) -> bool:
        """Frozen adapters at strength 0 do not."""
        return self.scaling[name] != 0 or bool(self.lora_A[name].weight.requires_grad)

    def _is_more(self, name: str) -> bool:
        """Whether an adapter is more than the product of its factors: a DoRA, one with dropout or a bias, another variant of PEFT's."""
        has_more = name in self.lora_variant or name in self.lora_magnitude_vector or self.lora_bias[name]
        return has_more or not isinstance(self.lora_dropout[name], nn.Identity)

    def _is_finer(self, name: str, base: Layer) -> bool:
        weight = self.lora_A[name].weight
        return self.is_exact and isinstance(weight, Tensor) and weight.dtype.itemsize > base.dtype.itemsize

    def _decompose(self, x: Tensor, name: str) -> Tensor:
        """Base layer and adapter, each output scaled to the learned length of its row; at strength 0 the base layer alone.

        The present lengths count as constants, as in the paper (4.3). In between 0 and 1 both the change and the lengths are in between.
        """
        base, strength = self.base_layer(x), self.read_strength(name)
        if strength == 0:
            return base  # type: ignore[no-any-return]
        changed = self._add(base, self.lora_dropout[name](x), [name])
        wanted = self.lora_magnitude_vector[name].weight
        assert isinstance(wanted, Tensor)
        if strength != 1:
            wanted = strength * wanted + (1 - strength) * self.measure_lengths(name, scale=0.0)
        factor = wanted / self.measure_lengths(name)
        bias = self.inner.bias
        rows = changed if bias is None else changed - bias
        return (changed + (factor - 1) * rows).to(base.dtype)


class _Sum(torch.autograd.Function):
    """A base layer's output and x A^T B^T times the scale of every adapter, each in the precision of its A and B."""

    @staticmethod
    def forward(ctx: Any, base: Tensor, x: Tensor, scales: list[float], *factors: Tensor) -> Tensor:
        """base (B..., O), x (B..., I), then A (R, I) and B (O, R) of each adapter, to (B..., O) in the precision of base."""
        ctx.save_for_backward(x if any(ctx.needs_input_grad[3:]) else None, *factors)
        ctx.scales, ctx.dtype = scales, x.dtype
        total = base
        for scale, down, up in zip(scales, factors[::2], factors[1::2], strict=True):
            x = x.to(down.dtype)
            total = total + functional.linear(functional.linear(x, down), up).mul_(scale)
        return total.to(base.dtype)

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, grad: Tensor) -> tuple[Tensor | None, ...]:
        """Gradients of base, of x, and of every A and B, each where it is wanted; x was cast from one adapter's precision to the next."""
        x, *factors = ctx.saved_tensors
        wants_base, wants_x, _, *wants = ctx.needs_input_grad
        gradients: list[Tensor | None] = []
        grad_x: Tensor | None = None
        for number in reversed(range(len(ctx.scales))):
            down, up = factors[2 * number : 2 * number + 2]
            wants_down, wants_up = wants[2 * number : 2 * number + 2]
            rows = (grad.to(down.dtype) * ctx.scales[number]).flatten(0, -2)
            inputs = x.flatten(0, -2).to(down.dtype) if wants_down or wants_up else None
            hidden = rows @ up if wants_x or wants_down else None
            grad_up = rows.t() @ functional.linear(inputs, down) if inputs is not None and wants_up else None
            grad_down = hidden.t() @ inputs if hidden is not None and inputs is not None and wants_down else None
            gradients = [grad_down, grad_up, *gradients]
            if hidden is not None and wants_x:
                own = hidden @ down
                grad_x = own if grad_x is None else own + grad_x.to(own.dtype)
        if grad_x is not None:
            grad_x = grad_x.view(*grad.shape[:-1], -1).to(ctx.dtype)
        return grad if wants_base else None, grad_x, None, *gradients
