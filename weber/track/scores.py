"""What an evaluation has measured: its names in the metrics, and in words."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

HELD_OUT, LEARNED, EMPTY = "evaluation/held_out", "evaluation/learned", "evaluation/empty_caption"
"""Mean losses: of pictures that are held out, of some that are learned, and of the first with the empty caption."""


MEASURED = "evaluation/of"
"""A name for what was measured."""

FINDING = "finding"
"""The name of something that goes wrong, in a line with the `text` of it."""


def name_level(part: str, level: float) -> str:
    """The loss of a part at one noise level."""
    return f"{start_of_levels(part)}{level:g}"


def start_of_levels(part: str) -> str:
    """What the names of a part's losses at noise levels begin with."""
    return f"{part}/"


def list_evaluations(lines: Sequence[Mapping[str, float]], *, of: object) -> list[Mapping[str, float]]:
    """Of the lines of a run's metrics those of evaluations of the same, in order."""
    return [line for line in lines if HELD_OUT in line and line.get(MEASURED) == of]


def describe_scores(numbers: Mapping[str, float], first: Mapping[str, float] | None) -> str:
    """A line for a person. `first`: what was measured first, if that was another time."""
    held, learned = numbers[HELD_OUT], numbers.get(LEARNED)
    said = f"loss {held:.4f} on pictures that are held out"
    said += "" if learned is None else f", {learned:.4f} on some that are learned"
    if first is None or learned is None:
        return said
    away, near = 100 * (held / first[HELD_OUT] - 1), 100 * (learned / first[LEARNED] - 1)
    return f"{said} ({away:+.1f} % and {near:+.1f} % since the start)"
