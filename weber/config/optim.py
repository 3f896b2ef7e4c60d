"""`[optim]`: how gradients move numbers."""

from __future__ import annotations

from typing import Annotated, Any, Literal

from pydantic import AfterValidator, Field, WithJsonSchema, model_validator

from weber.config.optimizers import FACTS, OptimizerFacts, read_optimizer_name
from weber.config.section import Section

Decay = Annotated[float, Field(ge=0, lt=1)]
Pair = Annotated[tuple[Decay, Decay], Field(strict=False)]
Triple = Annotated[tuple[Decay, Decay, Decay], Field(strict=False)]
OptimizerName = Annotated[str, AfterValidator(read_optimizer_name), WithJsonSchema({"type": "string", "enum": list(FACTS)})]
Option = bool | int | float | str | list[float]

LARGEST_LR = 100.0
"""No optimizer learns with a higher one: those that scale their steps move every number by `lr` itself."""

Rate = Annotated[float, Field(gt=0, le=LARGEST_LR)]

DEFAULT_LR = {"lora": 1e-4, "lokr": 1e-3, "full": 1e-5}
"""Learning rate of each form of adapter, where none is set; others have that of a LoRA."""


_LOWEST_FACTOR = 0.01
"""Of optimizers that find their rate themselves: below it somebody meant the rate of another one."""


class OptimConfig(Section):
    """How gradients move numbers."""

    name: OptimizerName = "adamw"
    """The optimizer. `adamw`: fp32 state, fused where the device has it; `adamw_bf16`: both moments in bf16 with stochastic rounding
    (half the memory); `adamw_8bit`: moments in 8 bits (a quarter); `adafactor`: one moment, a row and a column of each matrix; `lion`,
    `lion_8bit`: one moment; `prodigy`: finds the rate itself; `adamw_schedulefree`: needs no schedule; `muon`; and many more of libraries,
    under their own names and those of other trainers: docs/optimizers.md."""

    options: dict[str, Option] = {}
    """Further settings of a library's optimizer, by the names that it has for them, such as `{d_coef = 0.8}` of `prodigy`."""

    lr: Rate | None = None
    """Learning rate after warm-up. Left out: 1e-4 for a LoRA, 1e-3 for LoKr, 1e-5 for the weights themselves; a tenth of that with
    `lion`, and 1.0 with `prodigy`, which multiplies it by the rate that it finds."""

    text_encoder_lr: Rate | None = None
    """Learning rate of adapters on CLIP (`adapter.text_encoder`). Left out: as `lr`."""

    betas: Pair | Triple | None = None
    """Decay of the running means of the gradient and of its square; of `lion`, decay within the update and of the mean; `optimi_adan`
    and `bnb_ademamix` have a third one. Left out: [0.9, 0.999], [0.9, 0.99] for `lion`, or what is usual for the optimizer."""

    eps: Annotated[float, Field(gt=0)] | None = None
    """Added to the denominator. Left out: 1e-8, or what is usual for the optimizer."""

    weight_decay: Annotated[float, Field(ge=0)] | None = None
    """Weight decay, decoupled from the gradient where the name of the optimizer ends with W. Left out: 0.01, or what is usual for the
    optimizer."""

    clip_norm: Annotated[float, Field(gt=0)] | Literal["off"] | None = None
    """Gradients are scaled down so that their common norm is at most this; `"off"` leaves them. Left out: 1.0, or `"off"` with
    `fused_backward`, where that norm is not known before the last gradient, and with optimizers that bound their updates themselves."""

    fused_backward: bool = False
    """Move each weight as soon as its gradient is there, and drop the gradient: training whole models without room for all gradients.
    Refused with `train.accumulation` and with a `clip_norm`, which need all gradients at once."""

    state_on: Literal["device", "host"] = "device"
    """Where the optimizer's moments lie: beside the weights, or in the memory of the host, from where they are copied for each update."""

    ema_decay: Annotated[float, Field(gt=0, lt=1)] | None = None
    """Keep a running mean of the trained weights with this decay (0.999 or so); it is saved beside them. Left out: none."""

    ema_on: Literal["cpu", "device"] = "cpu"
    """Where the running mean lies."""

    ema_warmup: bool = True
    """Let the running mean forget its start: its decay is at most (1 + step) / (10 + step)."""

    schedule: Literal["constant", "linear", "cosine", "cosine_with_restarts", "polynomial"] = "constant"
    """Course of the learning rate after warm-up, down toward `end_lr`; with restarts, as many times as `cycles` says."""

    cycles: Annotated[int, Field(ge=2)] | None = None
    """How often `cosine_with_restarts` starts at `lr`. Left out: 2."""

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
        for key, schedule in (("power", "polynomial"), ("cycles", "cosine_with_restarts")):
            if self.schedule != schedule and getattr(self, key) is not None:
                raise ValueError(f'{key} has no effect with schedule = "{self.schedule}"; set schedule = "{schedule}" or remove {key}')
        if self.fused_backward and self.clip_norm not in (None, "off"):
            raise ValueError(
                f"clip_norm = {self.clip_norm} cannot act with fused_backward, because the norm of all gradients is known only when the"
                ' last weights have moved; set clip_norm = "off" or remove it'
            )
        for key, default in (("ema_on", "cpu"), ("ema_warmup", True)):
            value = getattr(self, key)
            if self.ema_decay is None and value != default:
                text = f'"{value}"' if isinstance(value, str) else str(value).lower()
                raise ValueError(f"{key} = {text} has no effect without ema_decay; set ema_decay or remove it")
        return self

    @model_validator(mode="after")
    def _refuse_what_the_optimizer_lacks(self) -> OptimConfig:
        facts, name = self.facts, f'name = "{self.name}"'
        if not facts.is_tail:
            self._check_numbers()
        if facts.is_own and self.options:
            raise ValueError(f"options has no effect with {name}, whose settings are those of [optim]; remove it")
        if not facts.is_own and self.fused_backward:
            raise ValueError(
                f'fused_backward cannot act with {name}, which moves all weights at once; set name = "adamw_8bit", "adamw_bf16",'
                ' "adafactor" or "lion_8bit", or remove fused_backward'
            )
        if not facts.is_own and self.state_on == "host":
            raise ValueError(
                f'state_on = "host" cannot act with {name}, whose state lies beside the weights; set name = "adamw_8bit" or another'
                " of weber's own, or remove state_on"
            )
        if facts.fixed_lr == 1 and not facts.has_rates and self.lr is not None and self.lr < _LOWEST_FACTOR:
            raise ValueError(
                f"lr = {self.lr} is a rate, but of {name}, which finds the rate itself, it is only a factor and would all but stop the"
                " run; set lr = 1.0 or remove it"
            )
        if facts.is_mean and self.schedule != "constant":
            raise ValueError(f'schedule = "{self.schedule}" cannot act with {name}, which needs the same rate to the end; remove schedule')
        if facts.is_mean and self.ema_decay is not None:
            raise ValueError(f"ema_decay has no effect with {name}, whose weights are already a mean; remove it")
        return self

    def _check_numbers(self) -> None:
        """`betas`, `eps` and `weight_decay`; a value that was the default of earlier versions is none."""
        facts, name = self.facts, f'name = "{self.name}"'
        if facts.betas is None and self.betas is not None:
            raise ValueError(f"betas has no effect with {name}, which has no such means; remove it")
        if self.betas is not None and facts.betas is not None and len(self.betas) != len(facts.betas):
            raise ValueError(f"betas has {len(self.betas)} numbers and {name} takes {len(facts.betas)}; write betas = {list(facts.betas)}")
        if facts.eps is None and self.eps not in (None, 1e-8):
            raise ValueError(f"eps = {self.eps} has no effect with {name}, which divides by nothing; remove it")

    @property
    def facts(self) -> OptimizerFacts:
        """What the optimizer takes."""
        return FACTS[self.name]

    @property
    def decays(self) -> tuple[float, ...] | None:
        """`betas`, or what is usual for the optimizer; None: it has none, or those of its library."""
        return self.facts.betas if self.betas is None else self.betas

    @property
    def chosen_eps(self) -> float | None:
        """`eps`, or what is usual for the optimizer."""
        usual = self.facts.eps
        return usual if self.eps is None or (usual is None and not self.facts.is_tail) else self.eps

    @property
    def chosen_weight_decay(self) -> float | None:
        """`weight_decay`, or what is usual for the optimizer."""
        return self.facts.weight_decay if self.weight_decay is None else self.weight_decay

    @property
    def norm_limit(self) -> float | None:
        """Largest norm of all gradients together; None: gradients are left as they are."""
        if self.clip_norm is None:
            return None if self.fused_backward or self.facts.is_clipped else 1.0
        return None if self.clip_norm == "off" else self.clip_norm

    def choose_lr(self, form: str) -> float:
        """`lr`, or what is usual for that form of adapter."""
        if self.lr is not None:
            return self.lr
        facts = self.facts
        return DEFAULT_LR.get(form, DEFAULT_LR["lora"]) * facts.lr if facts.fixed_lr is None else facts.fixed_lr

    def build_resolved(self, form: str) -> OptimConfig:
        """The same with everything filled in that was left out."""
        usual: dict[str, Any] = {
            "lr": self.choose_lr(form),
            "betas": self.decays,
            "eps": self.chosen_eps,
            "weight_decay": self.chosen_weight_decay,
            "clip_norm": self.norm_limit or "off",
            "cycles": self.num_cycles if self.schedule == "cosine_with_restarts" else None,
        }
        return self.model_copy(update=usual)

    @property
    def num_cycles(self) -> int:
        """`cycles`, or 2."""
        return self.cycles or 2
