"""`[objective]`: what is asked of the network."""

from __future__ import annotations

from typing import Annotated, Literal

from pydantic import Field, model_validator

from weber.config.section import Section


class ObjectiveConfig(Section):
    """What is asked of the network."""

    timesteps: Literal["uniform", "sigmoid", "shift", "token_shift", "fast"] | None = None
    """How the noise level t in 0..1 (1 = pure noise) is drawn. `uniform`; `sigmoid`: logistic function of scale x normal; `shift`: that,
    pushed toward noise by `shift`; `token_shift`: pushed by the model's own line over the number of image tokens; `fast`: 1 in seven of
    ten draws, else 0.75, 0.5 or 0.25, four steps without a shift. Left out: `sigmoid`, or `fast` for a
    model that paints in such steps."""

    sigmoid_scale: Annotated[float, Field(gt=0)] = 1.0
    """Scale of the normal draw; below 1 draws more middle noise levels. Has no place with `uniform`."""

    shift: Annotated[float, Field(gt=0)] | None = None
    """How far timesteps are pushed to high noise: k in t' = k t / (1 + (k - 1) t); above 1 trains more on high noise.
    Needed by, and only for, `timesteps = "shift"`."""

    guidance: Annotated[float, Field(ge=0)] | None = None
    """Guidance value fed to the model while training. Left out: 1.0 for a model that has a guidance input; refused for one without."""

    reference_timestep: Literal["shared", "zero"] = "shared"
    """The noise level that the tokens of reference pictures are told. `shared`: that of the picture, as BFL's and the library's
    samplers do; `zero`: 0, because references are clean. Needs references."""

    @model_validator(mode="after")
    def _refuse_what_cannot_act(self) -> ObjectiveConfig:
        if self.timesteps == "shift" and self.shift is None:
            raise ValueError('timesteps = "shift" needs shift; set it, for example shift = 3.0')
        if self.timesteps != "shift" and self.shift is not None:
            law = self.timesteps or "sigmoid"
            raise ValueError(f'shift has no effect with timesteps = "{law}"; set timesteps = "shift" or remove shift')
        if self.timesteps in ("uniform", "fast") and self.sigmoid_scale != 1.0:
            raise ValueError(f'sigmoid_scale has no effect with timesteps = "{self.timesteps}"; remove it or set timesteps = "sigmoid"')
        return self
