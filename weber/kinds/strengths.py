"""A kind of which single layers are weaker or stronger than the others."""

from __future__ import annotations

from collections.abc import Mapping

from torch import nn

from weber.kinds.kind import Strong


class WithStrengths:
    """What is trained, with strengths of single layers on top of that of all. `strengths`: by the library's names."""

    def __init__(self, kind: Strong, strengths: Mapping[str, float]) -> None:
        self._kind, self._strengths = kind, strengths

    def write_strength(self, transformer: nn.Module, strength: float) -> None:
        """See `Strong.write_strength`."""
        self._kind.write_strength(transformer, strength)
        for name, factor in self._strengths.items():
            self._kind.write_strength(transformer.get_submodule(name), strength * factor)
