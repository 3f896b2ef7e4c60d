"""How an operation is known to PyTorch: one name, and what each kind of device does for it.

Registered operations are one step for checkpointing, for compilation and for whoever counts work on the meta device. They know nothing
of gradients: the functions that use them (`weber/blocks`) call forward and backward operations themselves.
"""

from __future__ import annotations

from collections.abc import Callable
from functools import cache
from importlib import import_module
from importlib.util import find_spec
from typing import Any

import torch
from torch import Tensor

_LIBRARY: Any = torch.library.Library("weber", "DEF")  # type: ignore[no-untyped-call]
_GPU_KERNELS = "weber.kernels.triton"

PLAIN: dict[Any, Callable[..., Any]] = {}
"""The reference of each operation that is not whole."""


def define(
    name: str, signature: str, *, plain: Callable[..., Any], fake: Callable[..., Any], gpu: str | None = None, is_whole: bool = False
) -> Any:
    """Register an operation, and return what calls it.

    `plain` is the reference, and what devices run that have nothing better. `fake` makes outputs of the right shape on the meta device:
    only those that the kernel makes, so that what it holds is counted. `gpu` names a file of `weber/kernels/triton` that has a function
    of the operation's name; where Triton is not installed, GPUs run `plain`. `is_whole`: who lists what a block does lists this as one, as
    its steps need much memory between them.
    """
    _LIBRARY.define(f"{name}{signature}")
    _LIBRARY.impl(name, plain, "CPU")
    _LIBRARY.impl(name, fake, "Meta")

    def run(*args: Any) -> Any:
        kernel = plain if gpu is None or not has_triton() else _load(gpu, name)
        first = args[0] if isinstance(args[0], Tensor) else args[0][0]
        with torch.cuda.device(first.device):  # Triton starts kernels on the current one
            return kernel(*args)

    _LIBRARY.impl(name, run, "CUDA")
    operation = getattr(torch.ops.weber, name).default
    if not is_whole:
        PLAIN[operation] = plain
    return operation


def widen(tensor: Tensor) -> Tensor:
    """As references compute: in fp32, or in fp64 where they are checked."""
    return tensor if tensor.dtype == torch.float64 else tensor.float()


def is_recorded() -> bool:
    """Whether somebody lists what this thread does."""
    return bool(torch._C._len_torch_dispatch_stack())


@cache
def has_triton() -> bool:
    """Whether Triton is installed, as it is with PyTorch's builds for CUDA on Linux."""
    return find_spec("triton") is not None


@cache
def _load(file: str, name: str) -> Callable[..., Any]:
    kernel: Callable[..., Any] = getattr(import_module(f"{_GPU_KERNELS}.{file}"), name)
    return kernel
