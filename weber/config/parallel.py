"""`[parallel]`: how many devices train one run, and what each of them holds."""

from __future__ import annotations

from typing import Annotated, Literal

from pydantic import Field, model_validator

from weber.config.section import Section

Count = Annotated[int, Field(ge=1)]
Number = Annotated[int, Field(ge=0)]


class ParallelConfig(Section):
    """How many devices train one run, and what each of them holds. A step is the same pictures on any number of devices: its
    `train.batch_size` x `train.accumulation` pictures are dealt out."""

    devices: Literal["auto"] | Count | Annotated[list[Number], Field(min_length=1)] = "auto"
    """Which GPUs of this machine. `auto`: all of them, but no more than a step has pictures; a number: so many; a list: these, by their
    numbers. With `memory.device = "cpu"` a number of processes. Where torchrun, Slurm or Kubernetes has started the processes, these."""

    strategy: Literal["auto", "ddp", "fsdp"] = "auto"
    """What each device holds. `ddp`: the whole model. `fsdp`: a part of every block, and whole blocks only while they run, so that a model
    can be larger than a device; packed ones too (`memory.quantize`). `auto`: `ddp` where it fits, by the estimate that `weber plan`
    prints."""

    group: Literal["auto"] | Annotated[int, Field(ge=2)] = "auto"
    """How many devices hold all blocks between them, with `fsdp`: 4 of 8 are two groups, each of which has the whole model, so that blocks
    come from near and only gradients come from all. The processes are numbered machine by machine, and their number has to be a multiple.
    `auto`: those of one machine where there are several and one has room, by the estimate; else all."""

    reshard: bool = True
    """Let go of a whole block when it has run, and fetch it again for the backward pass, with `fsdp`. `false`: each is fetched once in a
    step and stays until its end, which takes the memory of all blocks on each device; gradients and optimizer state are divided all the
    same. Only with `adapter.kind = "full"`: blocks that do not change are whole on each device with `ddp`."""

    offload: bool = False
    """Keep a device's parts of frozen blocks in the memory of the host, with `fsdp`; they are copied to the device each time a block is put
    together. What is trained, its gradients and its optimizer state (but `optim.state_on`) stay on the device. Needs a GPU."""

    text_encoders: Literal["auto", "whole", "sharded"] = "auto"
    """What each device holds of a text encoder while texts are encoded. `whole`: all of it; `sharded`: a part of every layer, with either
    strategy. Each encodes a part of the texts. `auto`: `whole` where it fits, by the estimate."""

    @property
    def is_named(self) -> bool:
        """Whether somebody has said how many devices."""
        return self.devices != "auto"

    @property
    def num_devices(self) -> int | None:
        """How many were asked for; None: as many as there are."""
        if isinstance(self.devices, list):
            return len(self.devices)
        return self.devices if isinstance(self.devices, int) else None

    @model_validator(mode="after")
    def _refuse_what_cannot_act(self) -> ParallelConfig:
        if isinstance(self.devices, list) and len(set(self.devices)) < len(self.devices):
            raise ValueError(f"devices = {self.devices} names a device twice; name each once")
        for name, value in {"strategy": self.strategy, "text_encoders": self.text_encoders}.items():
            if self.num_devices == 1 and value != "auto":
                raise ValueError(f'{name} = "{value}" has no effect on one device; raise devices, or remove it')
        asked = {"group": self.group != "auto", "reshard": not self.reshard, "offload": self.offload}
        for name, is_asked in asked.items():
            if is_asked and self.strategy != "fsdp":
                raise ValueError(f'{name} is for blocks that are sharded; set strategy = "fsdp", or remove {name}')
        return self
