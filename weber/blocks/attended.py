"""Blocks that the library runs, with attention of the backend that was chosen: what it calls is PyTorch's, which takes what it likes."""

from __future__ import annotations

import threading
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, contextmanager
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor
from torch.autograd.function import once_differentiable
from torch.nn import functional
from torch.nn.attention import sdpa_kernel

from weber.kernels.attention import BACKENDS, attend, attend_backward


@dataclass(frozen=True)
class Attended:
    """A block, or what stands for it, called as it is. The choice holds while it runs, then and whenever it is run again."""

    call: Callable[..., Any]
    backend: str

    def __call__(self, *inputs: Any) -> Any:
        """See the class."""
        with attending(self.backend):
            return self.call(*inputs)


def attended(call: Callable[..., Any], backend: str | None) -> Callable[..., Any]:
    """`call` with attention of a backend; as it is where that is what PyTorch takes by itself."""
    return call if backend is None or backend == "cpu" else Attended(call, backend)


def attending(backend: str) -> AbstractContextManager[Any]:
    """While this is open, PyTorch's function is computed by a backend."""
    sdp = BACKENDS[backend].sdp
    manager: AbstractContextManager[Any] = _replacing(backend) if sdp is None else sdpa_kernel([sdp])
    return manager


@contextmanager
def _replacing(backend: str) -> Iterator[None]:
    """While this is open, attention of this thread is that of a package which PyTorch does not know. It takes no mask."""
    plain, thread = functional.scaled_dot_product_attention, threading.get_ident()

    def attend_here(*args: Any, **kwargs: Any) -> Tensor:
        if threading.get_ident() != thread:
            return plain(*args, **kwargs)
        functional.scaled_dot_product_attention = plain  # a package may call it itself
        try:
            return _attend(backend, *args, **kwargs)
        finally:
            functional.scaled_dot_product_attention = attend_here

    try:
        functional.scaled_dot_product_attention = attend_here
        yield
    finally:
        functional.scaled_dot_product_attention = plain


def _attend(
    backend: str, query: Tensor, key: Tensor, value: Tensor, attn_mask: Tensor | None = None, **settings: Any
) -> Tensor:
    """Called as PyTorch's function is."""
    assert attn_mask is None, "masks are refused before"
    output: Tensor = _Attend.apply(query, key, value, backend)  # type: ignore[no-untyped-call]
    return output


class _Attend(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, query: Tensor, key: Tensor, value: Tensor, backend: str) -> Tensor:
        output: Tensor
        output, *kept = attend(query, key, value, backend)
        ctx.save_for_backward(query, key, value, output, *kept)
        ctx.backend = backend
        return output

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, grad: Tensor) -> tuple[Tensor | None, ...]:
        query, key, value, *kept = ctx.saved_tensors
        return *attend_backward(grad, query, key, value, tuple(kept), ctx.backend), None
