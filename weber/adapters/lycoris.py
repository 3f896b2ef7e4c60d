"""Changes of LyCORIS on the linear layers of a frozen model, plain or packed, in fp32 whatever the model's precision.

A layer stays what it is and in its place, with the change beside its own weight: only its class gets another forward, so that an assistant
or anything else finds a linear layer there. For the backward pass a change keeps its input, or the layer's output, and its own numbers;
the rest is computed again.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from functools import cache, partial
from typing import Any

import torch
from torch import Tensor, nn
from torch.autograd.function import once_differentiable
from torch.nn import functional

from weber.adapters.lycoris_forms import (
    LENGTHS,
    Tensors,
    build_added,
    build_delta,
    build_lengths,
    build_product,
    build_start,
    build_turned,
    find_alpha,
    find_scale,
)
from weber.config.lycoris import LycorisConfig, LycorisLayer

CHANGE = "change"
"""Where on its layer a change lies."""


class Change(nn.Module):
    """What is learned of one layer."""

    def __init__(self, name: str, settings: LycorisLayer, *, tensors: Tensors, config: LycorisConfig) -> None:
        super().__init__()
        self.name, self.settings, self.strength = name, settings, 1.0
        self.alpha = find_alpha(settings, tensors)
        self.scale = find_scale(self.alpha, tensors)
        for part, tensor in tensors.items():
            self.register_parameter(part, nn.Parameter(tensor))
        # Where something is drawn, checkpointing has to know it.
        self.drop = nn.Dropout(config.dropout)
        self.drop_rank = nn.Dropout(config.rank_dropout)
        self.drop_module = nn.Dropout(config.module_dropout)

    @property
    def tensors(self) -> dict[str, Tensor]:
        """Its numbers, by their names."""
        return dict(self.named_parameters(recurse=False))

    def forward(self, layer: nn.Linear, base: Callable[[Tensor], Tensor], x: Tensor) -> Tensor:
        """x (..., inputs) to (..., outputs). `base` is the layer without the change; at strength 0 nothing else is done."""
        is_dropped = self.training and self.drop_module.p > 0 and bool(torch.rand(()) < self.drop_module.p)
        if self.strength == 0 or is_dropped:
            return base(x)
        if self.settings.algo == "glora":
            return self._add_twice(base, x)
        outputs = base(x)
        if self.settings.algo in ("diag-oft", "boft"):
            added = self._again(lambda y, tensors: build_turned(_subtract(y, layer.bias), tensors, limit=self.alpha), outputs)
        else:
            added = self._drop(self._add(layer, x))
        return outputs + (added if self.strength == 1 else added * self.strength)

    def _add(self, layer: nn.Linear, x: Tensor) -> Tensor:
        """What a sum adds: by its factors, or by the change of the weight."""
        settings = self.settings
        if settings.bypass_mode is not False and not settings.weight_decompose and settings.algo in ("lora", "locon", "lokr"):
            return self._again(lambda one, tensors: build_added(settings.algo, one, tensors=tensors, scale=self.scale), x)

        def apply(one: Tensor, tensors: Tensors) -> Tensor:
            weight = layer.weight.detach().float() if settings.weight_decompose else None
            delta = build_delta(settings.algo, tensors, alpha=self.alpha, weight=weight)
            bias = tensors.get("diff_b")
            return functional.linear(one, delta.to(one.dtype), None if bias is None else bias.to(one.dtype))

        return self._again(apply, x)

    def _add_twice(self, base: Callable[[Tensor], Tensor], x: Tensor) -> Tensor:
        """W (x + A x) + B x: the layer runs once."""
        scale = self.scale * self.strength
        inputs = self._again(lambda one, tensors: build_product(one, down=tensors["a2"], up=tensors["a1"]), x, ("a1", "a2"))
        outputs = self._again(lambda one, tensors: build_product(one, down=tensors["b2"], up=tensors["b1"]), x, ("b1", "b2"))
        return base(x + inputs * scale) + outputs * scale

    def _again(self, function: Callable[[Tensor, Tensors], Tensor], x: Tensor, names: Sequence[str] | None = None) -> Tensor:
        tensors = {name: tensor for name, tensor in self.tensors.items() if names is None or name in names}
        if self.training and self.drop_rank.p > 0 and self._has_ranks:
            tensors["lora_up"] = tensors["lora_up"] * self._draw(tensors["lora_up"].shape[1], x)
        result: Tensor = _Again.apply(function, tuple(tensors), x, *tensors.values())  # type: ignore[no-untyped-call]
        return result

    def _drop(self, added: Tensor) -> Tensor:
        """Leave out rows of the change, and single numbers; what is left is scaled up for the latter only, as LyCORIS does."""
        if self.training and self.drop_rank.p > 0 and not self._has_ranks:
            added = added * self._draw(added.shape[-1], added).to(added.dtype)
        dropped: Tensor = self.drop(added)
        return dropped

    @property
    def _has_ranks(self) -> bool:
        return self.settings.algo in ("lora", "locon") and self.settings.bypass_mode is not False

    def _draw(self, num: int, like: Tensor) -> Tensor:
        return (torch.rand(num, device=like.device) > self.drop_rank.p).float()


class _Again(torch.autograd.Function):
    """A function of an input and of named tensors that keeps these and nothing else, and is computed again for its gradients."""

    @staticmethod
    def forward(ctx: Any, function: Callable[[Tensor, Tensors], Tensor], names: Sequence[str], x: Tensor, *tensors: Tensor) -> Tensor:
        ctx.save_for_backward(x, *tensors)
        ctx.function, ctx.names = function, names
        return function(x, dict(zip(names, tensors, strict=True)))

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, grad: Tensor) -> tuple[Tensor | None, ...]:
        wants = ctx.needs_input_grad[2:]
        x, *tensors = (one.detach().requires_grad_(wanted) for one, wanted in zip(ctx.saved_tensors, wants, strict=True))
        with torch.enable_grad():
            result = ctx.function(x, dict(zip(ctx.names, tensors, strict=True)))
        wanted = [one for one in (x, *tensors) if one.requires_grad]
        found = iter(torch.autograd.grad(result, wanted, grad))
        return None, None, *(next(found) if one.requires_grad else None for one in (x, *tensors))


def build_changes(
    model: nn.Module,
    settings: Mapping[str, LycorisLayer],
    *,
    shapes: Mapping[str, tuple[int, ...]],
    config: LycorisConfig,
    seed: int,
    read: Callable[[str, nn.Linear], Tensor],
) -> list[tuple[str, nn.Parameter]]:
    """Put changes that change nothing yet on layers of `model`, in place; returns the named parameters that learn, all fp32.

    `shapes` are those of the parameters, by their names in the model. What is drawn is drawn with `seed`. `read` gives a layer's weight.
    """
    is_meta = all(one.is_meta for one in model.parameters())
    parameters = []
    with torch.random.fork_rng(), torch.device("meta" if is_meta else "cpu"):
        torch.manual_seed(seed)
        for name, one in settings.items():
            layer = model.get_submodule(name)
            assert isinstance(layer, nn.Linear)
            start = f"{name}.{CHANGE}."
            own = {part.removeprefix(start): shape for part, shape in shapes.items() if part.startswith(start)}
            tensors = {part: build_start(part, shape) for part, shape in own.items() if part != LENGTHS}
            if LENGTHS in own:
                tensors[LENGTHS] = build_lengths(read(name, layer), on_out=one.wd_on_out).to("meta" if is_meta else "cpu")
            change = Change(name, one, tensors=tensors, config=config)
            add_change(layer, change)
            parameters += [(start + part, parameter) for part, parameter in change.named_parameters()]
    return parameters


def add_change(layer: nn.Linear, change: Change) -> None:
    """Put a change beside a layer's own weight."""
    change.train(layer.training)
    layer.__class__ = _build_class(type(layer))  # type: ignore[arg-type]
    layer.add_module(CHANGE, change)


def list_changes(model: nn.Module) -> Iterator[Change]:
    """The changes on a model, in its order."""
    return (module for module in model.modules() if isinstance(module, Change))


def write_strength(model: nn.Module, strength: float) -> None:
    """Scale what all changes add to outputs: 0 is the model as it was, bit for bit, 1 is as trained."""
    for change in list_changes(model):
        change.strength = float(strength)


def _subtract(outputs: Tensor, bias: Tensor | None) -> Tensor:
    return outputs if bias is None else outputs - bias


@cache
def _build_class(kind: type[nn.Linear]) -> type[nn.Linear]:
    """The same kind of layer with a change beside it."""

    def forward(self: nn.Linear, input: Tensor) -> Tensor:
        change = self.get_submodule(CHANGE)
        assert isinstance(change, Change)
        return change(self, partial(kind.forward, self), input)  # type: ignore[no-any-return]

    return type(kind.__name__, (kind,), {"forward": forward, "__module__": kind.__module__})
