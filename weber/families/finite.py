"""Numbers in files that are none."""

from __future__ import annotations

from weber.families.tensors import Weights
from weber.progress import Progress, ignore_progress


def find_not_finite(weights: Weights, *, progress: Progress = ignore_progress) -> str | None:
    """The first tensor with a number that is not finite; one tensor in memory at a time."""
    for number, (name, entry) in enumerate(weights.items()):
        progress("checking the model's numbers", number, len(weights))
        if entry.dtype.is_floating_point:
            tensor = entry.read()
            if not bool((tensor.float() if tensor.dtype.itemsize == 1 else tensor).isfinite().all()):
                return name
    progress("checking the model's numbers", len(weights), len(weights))
    return None
