"""In how many ways a prompt is painted: in several sizes, with several seeds, at several strengths."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from itertools import product
from typing import Any

from weber.planning.prompts import Prompt


@dataclass(frozen=True)
class Ways:
    """Sizes are (height, width). An empty list: as the prompt says, or as for all others."""

    sizes: Sequence[tuple[int, int]] = ()
    seeds: Sequence[int] = ()
    strengths: Sequence[float] = ()

    def spread(self, prompt: Prompt) -> list[Prompt]:
        """The prompt in each of these ways; what it says itself stays."""
        own = prompt.own
        sizes = dict.fromkeys(prompt.choose_size(size) for size in self.sizes)
        axes = (
            [({"height": height, "width": width}, f"{width}x{height}") for height, width in sizes],
            [({"seed": seed}, f"seed {seed}") for seed in self.seeds if own.seed is None],
            [({"strength": strength}, f"strength {strength:g}") for strength in self.strengths if own.strength is None],
        )
        return [_choose(prompt, chosen) for chosen in product(*(_list_choices(axis) for axis in axes))]


_Choice = tuple[Mapping[str, Any], tuple[str, ...]]


def _list_choices(axis: Sequence[tuple[Mapping[str, Any], str]]) -> list[_Choice]:
    """A word for each where there are several."""
    if not axis:
        return [({}, ())]
    return [(settings, (word,) if len(axis) > 1 else ()) for settings, word in axis]


def _choose(prompt: Prompt, choices: Sequence[_Choice]) -> Prompt:
    settings = {name: value for some, _ in choices for name, value in some.items()}
    ways = tuple(word for _, words in choices for word in words)
    return replace(prompt, own=replace(prompt.own, **settings), ways=prompt.ways + ways)
