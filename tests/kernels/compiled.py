"""The kernels as a GPU runs them: the same calls as `interpreter.py` makes, with the arguments there."""

from __future__ import annotations

from importlib import import_module
from typing import Any

import torch
from torch import Tensor


class Compiled:
    """Calls functions of weber/kernels/triton on a GPU."""

    def __call__(self, file: str, name: str, *args: Any) -> tuple[Any, tuple[Any, ...]]:
        """What the function returned, and its arguments afterwards, on the CPU."""
        storages: dict[int, Tensor] = {}
        there = tuple(carry(one, "cuda", storages=storages) for one in args)
        made = getattr(import_module(f"weber.kernels.triton.{file}"), name)(*there)
        torch.cuda.synchronize()
        return carry(made, "cpu", storages={}), tuple(carry(one, "cpu", storages={}) for one in there)

    def stop(self) -> None:
        """Nothing."""


def carry(value: Any, device: str, *, storages: dict[int, Tensor]) -> Any:
    """To a device, with strides and offsets as they are; what shares memory still does."""
    if isinstance(value, list | tuple):
        return type(value)(carry(one, device, storages=storages) for one in value)
    if not isinstance(value, Tensor):
        return value
    storage = value.untyped_storage()
    if storage.data_ptr() not in storages:
        storages[storage.data_ptr()] = torch.tensor([], dtype=torch.uint8, device=value.device).set_(storage).to(device, copy=True)
    moved = storages[storage.data_ptr()].untyped_storage()
    return torch.tensor([], dtype=value.dtype, device=device).set_(moved, value.storage_offset(), value.shape, value.stride())
