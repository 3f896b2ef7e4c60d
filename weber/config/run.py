"""`RunConfig`: everything a person may ask of a run, one typed tree."""

from __future__ import annotations

from typing import Annotated

from pydantic import Field, model_validator

from weber.config.adapter import AdapterConfig
from weber.config.data import DataConfig
from weber.config.memory import MemoryConfig
from weber.config.model import ModelConfig
from weber.config.objective import ObjectiveConfig
from weber.config.optim import OptimConfig
from weber.config.output import OutputConfig, SamplingConfig
from weber.config.section import Section
from weber.config.train import TrainConfig


class RunConfig(Section):
    """Everything a person may ask of a run. The shortest one names a folder of pictures; the defaults do the rest."""

    model: ModelConfig = ModelConfig()
    """Which base model is trained."""

    data: Annotated[list[DataConfig], Field(min_length=1)]
    """Sets of pictures; at least one."""

    adapter: AdapterConfig = AdapterConfig()
    """Which numbers learn."""

    memory: MemoryConfig = MemoryConfig()
    """Where bytes live and how many bits they have."""

    objective: ObjectiveConfig = ObjectiveConfig()
    """What is asked of the network."""

    optim: OptimConfig = OptimConfig()
    """How gradients move numbers."""

    train: TrainConfig = TrainConfig()
    """How long, how many at once."""

    sampling: SamplingConfig = SamplingConfig()
    """Pictures painted on the way."""

    output: OutputConfig = OutputConfig()
    """What a run leaves behind, and where."""

    @model_validator(mode="after")
    def _name_sets_apart(self) -> RunConfig:
        names = [data.set_name for data in self.data]
        twice = sorted({name for name in names if names.count(name) > 1})
        if twice:
            raise ValueError(f'data: two sets are named {", ".join(twice)}; give each its own name, such as name = "{twice[0]}-2"')
        return self
