"""`[train]`: how long, how many at once."""

from __future__ import annotations

from typing import Annotated, Literal

from pydantic import Field, model_validator

from weber.config.section import Section

DEFAULT_STEPS = 2000


class TrainConfig(Section):
    """How long, how many at once."""

    steps: Annotated[int, Field(ge=1)] | None = None
    """Optimizer steps. Left out: 2000, unless `epochs` is given."""

    epochs: Annotated[int, Field(ge=1)] | None = None
    """Passes over the data, instead of `steps`."""

    batch_size: Annotated[int, Field(ge=1)] = 1
    """Pictures per forward pass."""

    accumulation: Annotated[int, Field(ge=1)] = 1
    """Forward and backward passes per optimizer step. A step of batch 2 equals one of batch 1 with accumulation 2."""

    balance: Literal["pictures", "sets"] = "pictures"
    """What has the same weight in an epoch. `pictures`: each picture, with its repeats; `sets`: each set, however many pictures it has."""

    seed: Annotated[int, Field(ge=0)] = 42
    """Seed of everything that is drawn: order, captions, crops, timesteps, noise, adapter start."""

    @model_validator(mode="after")
    def _refuse_both(self) -> TrainConfig:
        if self.steps is not None and self.epochs is not None:
            raise ValueError("steps and epochs cannot both be set; keep one of them")
        return self
