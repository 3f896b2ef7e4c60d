"""How tensors are cut into the tiles of Triton's programs.

Every kernel of this room reads what it needs once, computes in fp32 and rounds once. Offsets of rows are of 64 bits: a block's projections
of a large batch have more than 2^31 numbers.
"""

from __future__ import annotations

import torch
from torch import Tensor

_LANES = 32
"""Threads of a warp."""


def cover(size: int, *, at_least: int = 1, at_most: int = 65536) -> int:
    """The smallest power of two that is not below the size: edges of tiles are powers of two, and what is too much is masked."""
    return min(max(1 << (size - 1).bit_length(), at_least), at_most)


def count_warps(num_elements: int, *, per_thread: int = 16, at_most: int = 16) -> int:
    """How many warps share a tile, so that a thread holds so many of its elements."""
    return min(max(cover(num_elements) // (_LANES * per_thread), 1), at_most)


def lay(tensor: Tensor) -> Tensor:
    """The tensor itself where its last dimension lies together, as kernels need it; else a copy."""
    return tensor if tensor.stride(-1) == 1 or tensor.shape[-1] == 1 else tensor.contiguous()


def list_steps(tensor: Tensor, num: int) -> list[int]:
    """How far it is to the next index of each of the first dimensions; 0 where there is one that holds for all."""
    return [0 if size == 1 else stride for size, stride in zip(tensor.shape[:num], tensor.stride()[:num], strict=True)]


def build_like(tensor: Tensor) -> Tensor:
    """An empty tensor of the same shape whose rows lie behind each other."""
    return torch.empty(tensor.shape, dtype=tensor.dtype, device=tensor.device)
