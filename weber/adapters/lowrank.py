"""A LoRA layer that keeps nothing for the backward pass but its input as it is.

PEFT's own forward casts the input of a bf16 model to the fp32 of the adapter, and keeps that copy for every layer, and the product with A.
Here the input is kept by reference, so that layers with the same input share it, and the product, which costs next to nothing, is made
again. The numbers are PEFT's, bit for bit (tests/adapters/test_lowrank.py).

Legend: B... any leading dimensions, I inputs, O outputs, R rank.
"""

from __future__ import annotations

from typing import Any

import torch
from peft.tuners.lora import Linear
from torch import Tensor, nn
from torch.autograd.function import once_differentiable
from torch.nn import functional


class LowRank(Linear):
    """PEFT's LoRA of a linear layer with another forward; what is not plain, dropout for one, still goes through PEFT's."""

    def forward(self, x: Tensor, *args: Any, **kwargs: Any) -> Tensor:
        """What the base layer gives, and what the active adapters add, summed in the wider precision."""
        names = [name for name in self.active_adapters if name in self.lora_A]
        is_plain = not (args or kwargs or self.disable_adapters or self.merged or self.lora_variant) and len(names) > 0
        result: Tensor
        if is_plain and all(isinstance(self.lora_dropout[name], nn.Identity) and not self.lora_bias[name] for name in names):
            factors = [one[name].weight for name in names for one in (self.lora_A, self.lora_B)]
            scales = [self.scaling[name] for name in names]
            result = _Sum.apply(self.base_layer(x), x, scales, *factors)  # type: ignore[no-untyped-call]
        else:
            result = super().forward(x, *args, **kwargs)
        return result


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
