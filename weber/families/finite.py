"""Numbers in files that are none."""

from __future__ import annotations

import math

import torch
from torch import Tensor

from weber.errors import ModelError
from weber.families.tensors import Entry, Weights
from weber.progress import Progress, ignore_progress


def is_finite(tensor: Tensor) -> bool:
    """Whether all numbers are finite; one pass, in which nothing of the tensor's size is built."""
    if not tensor.dtype.is_floating_point or tensor.numel() == 0:
        return True
    ends = torch.aminmax(tensor if tensor.dtype.itemsize > 1 else tensor.to(torch.bfloat16))
    return all(math.isfinite(end.item()) for end in ends)


def read_finite(name: str, entry: Entry) -> Tensor:
    """The tensor, all of whose numbers are finite. Raises ModelError with its name and its file."""
    tensor = entry.read()
    if not is_finite(tensor):
        raise ModelError(
            "A model holds numbers that are not finite: it is damaged, or its training has failed.",
            got=f"{name}" + (f" in {entry.file}" if entry.file is not None else ""),
            expected="finite numbers in all tensors",
            fix="download the file again, or take an earlier checkpoint of the run that made it",
        )
    return tensor


def find_not_finite(weights: Weights, *, progress: Progress = ignore_progress) -> str | None:
    """The first tensor with a number that is not finite; one tensor in memory at a time."""
    for number, (name, entry) in enumerate(weights.items()):
        progress("checking the model's numbers", number, len(weights))
        if entry.dtype.is_floating_point and not is_finite(entry.read()):
            return name
    progress("checking the model's numbers", len(weights), len(weights))
    return None
