"""`[optim]`: how gradients move numbers."""

from __future__ import annotations

from typing import Annotated, Literal

from pydantic import Field, model_validator

from weber.config.section import Section

Decay = Annotated[float, Field(ge=0, lt=1)]


DEFAULT_LR = {"lora": 1e-4, "lokr": 1e-3, "full": 1e-5}
"""Learning rate of each form of adapter, where none is set; others have that of a LoRA."""
_SIGN_LR_FACTOR = 0.1
"""Lion moves every number by the whole rate, so that a tenth is usual (Chen et al. 2023, arXiv:2302.06675)."""


class OptimConfig(Section):
    """How gradients move numbers."""

    name: Literal["adamw", "adamw_bf16", "adamw_8bit", "adafactor", "lion", "lion_8bit"] = "adamw"
    """The optimizer. `adamw`: fp32 state, fused where the device has it; `adamw_bf16`: both moments in bf16 with stochastic rounding
    (half the memory); `adamw_8bit`: moments in 8 bits (a quarter); `adafactor`: one moment, a row and a column of each matrix; `lion`,
    `lion_8bit`: one moment. All but `adamw` round parameters that are themselves bf16 stochastically."""

    lr: Annotated[float, Field(gt=0)] | None = None
    """Learning rate after warm-up. Left out: 1e-4 for a LoRA, 1e-3 for LoKr, 1e-5 for the weights themselves; a tenth of that with
    `lion`."""

    text_encoder_lr: Annotated[float, Field(gt=0)] | None = None
    """Learning rate of adapters on CLIP (`adapter.text_encoder`). Left out: as `lr`."""

    betas: Annotated[tuple[Decay, Decay], Field(strict=False)] | None = None
    """Decay of the running means of the gradient and of its square; of `lion`, decay within the update and of the mean. Left out:
    [0.9, 0.999], or [0.9, 0.99] for `lion`."""

    eps: Annotated[float, Field(gt=0)] = 1e-8
    """Added to the denominator."""

    weight_decay: Annotated[float, Field(ge=0)] = 0.01
    """Decoupled weight decay."""

    clip_norm: Annotated[float, Field(gt=0)] | Literal["off"] | None = None
    """Gradients are scaled down so that their common norm is at most this; `"off"` leaves them. Left out: 1.0, or `"off"` with
    `fused_backward`, where that norm is not known before the last gradient."""

    fused_backward: bool = False
    """Move each weight as soon as its gradient is there, and drop the gradient: training whole models without room for all gradients.
    Refused with `train.accumulation` and with a `clip_norm`, which need all gradients at once."""

    state_on: Literal["device", "host"] = "device"
    """Where the optimizer's moments lie: beside the weights, or in the memory of the host, from where they are copied for each update."""

    ema_decay: Annotated[float, Field(gt=0, lt=1)] | None = None
    """Keep a running mean of the trained weights with this decay (0.999 or so); it is saved beside them. Left out: none."""

    ema_on: Literal["cpu", "device"] = "cpu"
    """Where the running mean lies."""

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
        if self.fused_backward and self.clip_norm not in (None, "off"):
            raise ValueError(
                f"clip_norm = {self.clip_norm} cannot act with fused_backward, because the norm of all gradients is known only when the"
                ' last weights have moved; set clip_norm = "off" or remove it'
            )
        if self.ema_decay is None and self.ema_on != "cpu":
            raise ValueError(f'ema_on = "{self.ema_on}" has no effect without ema_decay; set ema_decay or remove it')
        if self.name == "adafactor" and self.betas is not None:
            raise ValueError('betas has no effect with name = "adafactor", whose second moment has a decay of its own; remove it')
        if self.is_lion and self.eps != 1e-8:
            raise ValueError(f'eps = {self.eps} has no effect with name = "{self.name}", which divides by nothing; remove it')
        return self

    @property
    def is_lion(self) -> bool:
        """Whether numbers move by signs."""
        return self.name.startswith("lion")

    @property
    def decays(self) -> tuple[float, float]:
        """`betas`, or what is usual for the optimizer."""
        return self.betas or ((0.9, 0.99) if self.is_lion else (0.9, 0.999))

    @property
    def norm_limit(self) -> float | None:
        """Largest norm of all gradients together; None: gradients are left as they are."""
        if self.clip_norm is None:
            return None if self.fused_backward else 1.0
        return None if self.clip_norm == "off" else self.clip_norm

    def choose_lr(self, form: str) -> float:
        """`lr`, or what is usual for that form of adapter."""
        if self.lr is not None:
            return self.lr
        return DEFAULT_LR.get(form, DEFAULT_LR["lora"]) * (_SIGN_LR_FACTOR if self.is_lion else 1.0)
