"""Whether a run has collapsed though all of its numbers are finite, as its metrics tell it."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from statistics import mean

from weber.track.jsonl import read_metrics

_WINDOW, _LEAST = 20, 10
_LOSS_FACTOR, _GRADIENT_SHARE = 10.0, 1e-6


def find_collapse(run_folder: Path) -> str | None:
    """What a person should know: a loss of ten times its start, or gradients that are gone; None where all seems well."""
    lines = read_metrics(run_folder)
    losses = [line["loss"] for line in lines if "loss" in line]
    norms = [line["grad_norm"] for line in lines if "grad_norm" in line]
    found = []
    if len(losses) >= _LEAST:
        start, end = _compare(losses)
        if start > 0 and end >= _LOSS_FACTOR * start:
            found.append(f"the loss has become {end / start:.3g} times what it was ({start:.3g} at the start, {end:.3g} at the end)")
    if len(norms) >= _LEAST:
        start, end = _compare(norms)
        if end <= _GRADIENT_SHARE * start:
            found.append(f"the gradients are gone (their norm was {start:.3g} and is {end:.3g})")
    if not found:
        return None
    return " and ".join(found) + ". What was learned is of no use; train again with a lower optim.lr."


def _compare(numbers: Sequence[float]) -> tuple[float, float]:
    """What the numbers of a run were at its start and are at its end: the means of some steps; or, where a run has collapsed before these,
    the first one, and what none of the last ones falls below."""
    window = min(_WINDOW, len(numbers) // 2)
    last = numbers[-window:]
    if min(last) >= _LOSS_FACTOR * numbers[0]:
        return numbers[0], mean(last)
    return mean(numbers[:window]), mean(last)
