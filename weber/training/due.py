"""When something that happens every so many steps is due."""

from __future__ import annotations


def is_due(step: int, *, every: int, num_steps: int) -> bool:
    """After `step` finished steps: every `every` steps, and at the end."""
    return step % every == 0 or step == num_steps
