"""`[evaluation]`: what pictures that are not learned say of a run."""

from __future__ import annotations

from typing import Annotated, Literal

from pydantic import Field, field_validator

from weber.config.every import Every
from weber.config.section import Section

Level = Annotated[float, Field(gt=0, lt=1)]


class EvaluationConfig(Section):
    """How well the run does on pictures that it does not learn (`data.evaluation`), at the start, every `every` steps, and at the end."""

    every: Every = 250
    """Steps between evaluations, or epochs: `"2 epochs"`. As often the run's numbers are read for what goes wrong, with or without pictures
    that are held out."""

    pictures: Annotated[int, Field(ge=1)] = 8
    """How many of the pictures that are held out are measured, and as many of those that are learned, at most; the same ones each time."""

    levels: Annotated[list[Level], Field(min_length=1)] = [0.1, 0.3, 0.5, 0.7, 0.9]
    """Noise levels at which each picture is measured, always with the same noise; 1 is pure noise. Each is a forward pass."""

    weights: Literal["trained", "ema"] = "trained"
    """Which weights are measured: those that are trained, or their running mean (`optim.ema_decay`)."""

    @field_validator("levels")
    @classmethod
    def _refuse_twice(cls, value: list[float]) -> list[float]:
        twice = [level for level in value if value.count(level) > 1]
        if twice:
            raise ValueError(f"{twice[0]:g} is there twice; name each noise level once")
        return value
