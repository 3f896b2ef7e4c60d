"""Fused backward: each parameter is updated as soon as its gradient is there, so that the gradients are never all in memory."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager

import torch
from torch import Tensor, nn

from weber.optim.stepper import Stepper


def ignore_stepped(parameter: nn.Parameter) -> None:
    """Do nothing after an update."""


class FusedBackward:
    """Hooks on the parameters of a `Stepper` that update each and drop its gradient, in the backward passes of `step(is_last=True)`.

    A parameter whose gradient is not finite is left as it is, moments too. That is decided on the device (the new numbers replace the old
    ones by `torch.where` on a flag); the host learns of it from `norm`, and then has to tell the optimizer (`take_back`). `on_stepped` is
    called after each update.
    """

    def __init__(self, optimizer: Stepper, *, on_stepped: Callable[[nn.Parameter], None] = ignore_stepped) -> None:
        self._optimizer, self._on_stepped = optimizer, on_stepped
        self._parameters: list[nn.Parameter] = [parameter for group in optimizer.param_groups for parameter in group["params"]]
        self._hooks = [
            parameter.register_post_accumulate_grad_hook(self._take)  # type: ignore[no-untyped-call]
            for parameter in self._parameters
        ]
        self._is_active = False
        self._norms: dict[Tensor, Tensor] = {}
        self._is_finite: Tensor | None = None
        self.norm: Tensor | None = None
        """Of all gradients of the last step, on the device; not finite where one of them was not. None before the first step."""

    @contextmanager
    def step(self, *, is_last: bool, is_finite: Tensor | None = None) -> Iterator[None]:
        """Around the backward pass of one micro-batch. Before the last one of a step, gradients add up as usual. Where the flag `is_finite`
        (on the device) is false, nothing moves."""
        self._norms.clear()
        self._is_finite = is_finite
        if is_last:
            self._optimizer.begin()
        self._is_active = is_last
        try:
            yield
        finally:
            self._is_active = False
        if is_last:
            for parameter in self._parameters:
                if parameter.grad is not None:  # of an earlier micro-batch
                    self._update(parameter)
            self.norm = nn.utils.get_total_norm(list(self._norms.values()))
            self._norms.clear()

    def close(self) -> None:
        """Take the hooks off."""
        for hook in self._hooks:
            hook.remove()

    def _take(self, parameter: Tensor) -> None:
        if self._is_active:
            assert isinstance(parameter, nn.Parameter)
            self._update(parameter)

    def _update(self, parameter: nn.Parameter) -> None:
        assert parameter.grad is not None
        assert parameter not in self._norms, "the gradient of a parameter came twice in one backward pass"
        norm = torch.linalg.vector_norm(parameter.grad, dtype=torch.float32)
        self._norms[parameter] = norm
        is_finite = torch.isfinite(norm)
        self._optimizer.step_parameter(parameter, is_finite=is_finite if self._is_finite is None else is_finite & self._is_finite)
        parameter.grad = None
        self._on_stepped(parameter)
