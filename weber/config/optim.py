"""`[optim]`: how gradients move numbers."""

from __future__ import annotations

from typing import Annotated, Literal

from pydantic import Field, model_validator

from weber.config.section import Section

Decay = Annotated[float, Field(ge=0, lt=1)]


class OptimConfig(Section):
    """How gradients move numbers."""

    name: Literal["adamw", "adamw_bf16"] = "adamw"
    """The optimizer. `adamw`: fp32 state, fused where the device has it; `adamw_bf16`: both moments in bf16 with stochastic rounding
    (half the memory; parameters that are themselves bf16 are rounded stochastically too)."""

    lr: Annotated[float, Field(gt=0)] = 1e-4
    """Learning rate after warm-up."""

    betas: Annotated[tuple[Decay, Decay], Field(strict=False)] = (0.9, 0.999)
    """Decay of the running means of the gradient and of its square."""

    eps: Annotated[float, Field(gt=0)] = 1e-8
    """Added to the denominator."""

    weight_decay: Annotated[float, Field(ge=0)] = 0.01
    """Decoupled weight decay."""

    clip_norm: Annotated[float, Field(gt=0)] | Literal["off"] = 1.0
    """Gradients are scaled down so that their common norm is at most this; `"off"` leaves them."""

    schedule: Literal["constant", "linear", "cosine", "polynomial"] = "constant"
    """Course of the learning rate after warm-up, down toward `end_lr`."""

    warmup_steps: Annotated[int, Field(ge=0)] = 0
    """Steps over which the learning rate rises from 0."""

    end_lr: Annotated[float, Field(ge=0)] = 0.0
    """Learning rate that the step after the last would have. Has no place with `constant`."""

    power: Annotated[float, Field(gt=0)] | None = None
    """Exponent of `polynomial`. Left out: 1.0, which equals `linear`."""

    @model_validator(mode="after")
    def _refuse_what_cannot_act(self) -> OptimConfig:
        if self.schedule == "constant" and self.end_lr != 0.0:
            raise ValueError('end_lr has no effect with schedule = "constant"; set schedule = "linear" or remove end_lr')
        if self.schedule != "polynomial" and self.power is not None:
            raise ValueError(f'power has no effect with schedule = "{self.schedule}"; set schedule = "polynomial" or remove power')
        if self.end_lr > self.lr:
            raise ValueError(f"end_lr = {self.end_lr} is above lr = {self.lr}; lower end_lr, since schedules only go down")
        return self
