"""`[output]` and `[sampling]`: what a run leaves behind, and the pictures it paints on the way."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

from pydantic import Field, model_validator

from weber.config.section import FolderPath, Section


class OutputConfig(Section):
    """What a run leaves behind, and where."""

    folder: FolderPath = Path("runs/lora")
    """The run folder: resolved config, checkpoints, metrics, pictures, the finished adapter."""

    cache: FolderPath = Path("cache")
    """Folder of encoded tensors. Its keys are made of content, so any number of runs may share it."""

    save_every: Annotated[int, Field(ge=1)] = 250
    """Steps between checkpoints; one is always written at the end."""

    keep_last: Annotated[int, Field(ge=1)] = 2
    """How many checkpoints are kept; older ones are deleted after a new one is whole."""

    tensorboard: bool = False
    """Write TensorBoard events beside `metrics.jsonl` (needs `pip install 'weber[tensorboard]'`)."""


class SamplingConfig(Section):
    """Pictures painted at the start, every `every` steps, and at the end."""

    prompts: list[str] = []
    """One picture each, on a contact sheet beside the base model's picture. Empty: no pictures."""

    every: Annotated[int, Field(ge=1)] = 250
    """Steps between pictures."""

    steps: Annotated[int, Field(ge=1)] | None = None
    """Sampling steps. Left out: the variant's own (28 for most, 4 for a distilled one)."""

    guidance: Annotated[float, Field(ge=0)] | None = None
    """Guidance in sampling. Left out: the variant's own (3.5 for most); refused for a model without a guidance input."""

    width: Annotated[int, Field(ge=16)] | None = None
    """Width in pixels. Left out: the edge of the first set's resolution."""

    height: Annotated[int, Field(ge=16)] | None = None
    """Height in pixels. Left out: the edge of the first set's resolution."""

    seed: Annotated[int, Field(ge=0, lt=2**62)] = 42
    """Seed of the first picture's noise; each further prompt adds 1."""

    @model_validator(mode="after")
    def _refuse_unused(self) -> SamplingConfig:
        changed = sorted(self.model_dump(exclude_defaults=True))
        if changed and not self.prompts:
            raise ValueError(f"{', '.join(changed)} cannot take effect without prompts; set sampling.prompts or remove it")
        return self
