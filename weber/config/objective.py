"""`[objective]`: what is asked of the network."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Annotated, Literal

from pydantic import Field, model_validator

from weber.config.section import Section

Timesteps = Literal[
    "uniform", "sigmoid", "logit_normal", "mode", "cosmap", "beta", "cubic", "shift", "token_shift", "fast", "list"
]
_Positive = Annotated[float, Field(gt=0)]
_Level = Annotated[float, Field(ge=0, le=1)]

OF_LAWS: dict[str, tuple[str, ...]] = {
    "sigmoid_scale": ("sigmoid", "shift", "token_shift"),
    "sigmoid_offset": ("sigmoid", "shift", "token_shift"),
    "logit_mean": ("logit_normal",),
    "logit_std": ("logit_normal",),
    "mode_scale": ("mode",),
    "beta_shape": ("beta",),
    "cubic_weights": ("cubic",),
    "timestep_list": ("list",),
    "timestep_order": ("list",),
}
"""Settings of the laws -> the laws that have them."""


class RouteConfig(Section):
    """Blocks in which some of the picture's tokens are left out (TREAD, Krause et al. 2025)."""

    ratio: Annotated[float, Field(ge=0, lt=1)]
    """Share of the picture's tokens that skip these blocks and come back unchanged behind them."""

    first: int = 2
    """The first of the blocks, counted from 0 over all blocks in the order in which they run; negative ones count from the end."""

    last: int = -3
    """The last of them."""


class RolloutConfig(Section):
    """The model's own steps as input (scheduled sampling), so that it learns to mend its own errors."""

    max_steps: Annotated[int, Field(ge=1)] = 1
    """How many steps of the sampler lead to the input, at most; each costs a forward pass."""

    step_size: Annotated[float, Field(gt=0, le=0.5)] = 0.05
    """How far one of them goes in t."""

    probability: _Level = 0.5
    """Share of the samples whose input is made so, at the end of the ramp."""

    start_probability: _Level = 0.0
    """The share at the start of the ramp."""

    start_step: Annotated[int, Field(ge=0)] = 0
    """Step of the run at which the ramp starts; before it there is no rollout."""

    ramp_steps: Annotated[int, Field(ge=0)] = 0
    """Length of the ramp."""

    ramp: Literal["linear", "cosine"] = "linear"
    """Its shape."""

    strategy: Literal["uniform", "early", "late"] = "uniform"
    """How the number of steps is drawn: each equally likely, mostly few, or mostly many."""

    @model_validator(mode="after")
    def _refuse_what_cannot_act(self) -> RolloutConfig:
        if self.probability == 0 and (self.start_probability == 0 or self.ramp_steps == 0):
            raise ValueError("probability = 0 leaves nothing of the rollout; raise it, or remove [objective.rollout]")
        if self.strategy != "uniform" and self.max_steps == 1:
            raise ValueError(f'strategy = "{self.strategy}" has no effect with max_steps = 1; raise max_steps, or remove it')
        for name in ("start_probability", "ramp"):
            if getattr(self, name) != RolloutConfig.model_fields[name].default and self.ramp_steps == 0:
                raise ValueError(f"{name} has no effect without a ramp; set ramp_steps = 500 or so, or remove it")
        if self.ramp_steps > 0 and self.start_probability == self.probability:
            raise ValueError("ramp_steps has no effect where start_probability is probability; lower start_probability, or remove both")
        return self


class ObjectiveConfig(Section):
    """What is asked of the network."""

    timesteps: Timesteps | None = None
    """How the noise level t in 0..1 (1 = pure noise) is drawn. `uniform`; `sigmoid`: logistic function of scale x (normal + offset);
    `logit_normal`: the same by mean and deviation; `mode` and `cosmap`: of Stable Diffusion 3; `beta`; `cubic`: a curve through weights;
    `shift`: `sigmoid`, pushed toward noise by `shift`; `token_shift`: pushed by the model's own line over the number of image tokens;
    `fast`: 1 in seven of ten draws, else 0.75, 0.5 or 0.25, four steps without a shift; `list`: those of `timestep_list`. Left out:
    `sigmoid`, or `fast` for a model that paints in such steps."""

    sigmoid_scale: _Positive = 1.0
    """Scale of the normal draw; below 1 draws more middle noise levels. For `sigmoid`, `shift` and `token_shift`."""

    sigmoid_offset: float = 0.0
    """Added to the normal draw; above 0 trains more on high noise. For `sigmoid`, `shift` and `token_shift`."""

    logit_mean: float = 0.0
    """Mean of the logit of t, for `logit_normal`; above 0 trains more on high noise (diffusers' scripts have it the other way round)."""

    logit_std: _Positive = 1.0
    """Deviation of the logit of t, for `logit_normal`."""

    mode_scale: Annotated[float, Field(ge=-1, le=1.75)] = 1.29
    """Strength of `mode`: above 0 favors middle noise levels."""

    beta_shape: Annotated[tuple[_Positive, _Positive], Field(strict=False)] = (2.0, 2.0)
    """Both parameters of `beta`; the first one larger trains more on high noise."""

    cubic_weights: list[Annotated[float, Field(ge=0)]] = []
    """Densities of `cubic` at equal distances from t = 0 to t = 1, at least one; a smooth curve without overshoot leads through them."""

    timestep_list: list[_Level] = []
    """Noise levels of `list`."""

    timestep_order: Literal["random", "cycle"] = "random"
    """Whether one of the list is drawn, or each has its turn."""

    shift: _Positive | Literal["tokens"] | None = None
    """How far timesteps are pushed to high noise: k in t' = k t / (1 + (k - 1) t); above 1 trains more on high noise, below 1 (0.1 or so)
    more on fine detail. `"tokens"`: by the model's own line over the number of image tokens. Left out: not at all. Needed by
    `timesteps = "shift"`."""

    stratified: bool = False
    """Spread the noise levels of a step evenly over the law instead of drawing each alone: the loss is less noisy. Needs a
    `train.batch_size` x `train.accumulation` of 2 or more."""

    guidance: Annotated[float, Field(ge=0)] | None = None
    """Guidance value fed to the model while training. Left out: 1.0 for a model that has a guidance input; refused for one without."""

    guidance_range: Annotated[tuple[Annotated[float, Field(ge=0)], Annotated[float, Field(ge=0)]], Field(strict=False)] | None = None
    """Draw the guidance of each sample evenly between two values instead."""

    text_mask: bool = False
    """Keep the model from looking at the padding behind a caption, in training and in pictures. For models whose text is padded to one
    length; most programs that paint do not do so."""

    loss: Literal["l2", "l1", "huber", "smooth_l1"] = "l2"
    """Distance between the predicted and the asked velocity. `huber` and `smooth_l1` are l2 for small and l1 for large errors."""

    huber_c: Annotated[float, Field(ge=1e-6, le=1e6)] = 0.1
    """Where `huber` and `smooth_l1` go from l2 to l1."""

    huber_schedule: Literal["constant", "exponential"] = "constant"
    """`exponential`: `huber_c` to the power t, which is `huber_c` at pure noise and 1 at the picture."""

    weighting: Literal["none", "sigma_sqrt", "cosmap"] = "none"
    """Weight of a sample by its noise level. `sigma_sqrt`: 1 / t squared, where t below 0.001 counts as 0.001; `cosmap`:
    2 / (pi (1 - 2 t + 2 t squared)), the most at t = 0.5."""

    mask_mean: Literal["mask", "picture"] = "mask"
    """What masked losses are the mean of. `mask`: the area of the mask, so that small ones count as much as large ones; `picture`: the
    whole picture, as other trainers do it."""

    mask_minimum: Annotated[float, Field(ge=0, lt=1)] = 0.0
    """Weight of what is black in a mask; white has 1."""

    teacher_draws: Annotated[int, Field(ge=1)] | None = None
    """Regularization sees each picture with this many fixed pairs of noise level and noise, for which the model's answers are computed
    once and kept in the cache. Left out: fresh noise and a further pass each time."""

    tread: list[RouteConfig] = []
    """Blocks in which tokens are left out while training, each under its own `[[objective.tread]]`: faster steps. What a mask for the
    loss asks for, texts and references are never left out."""

    rollout: RolloutConfig | None = None
    """The model's own steps as input: a table `[objective.rollout]`."""

    reference_timestep: Literal["shared", "zero"] = "shared"
    """The noise level that the tokens of reference pictures are told. `shared`: that of the picture, as BFL's and the library's
    samplers do; `zero`: 0, because references are clean. Needs references."""

    @model_validator(mode="after")
    def _refuse_what_cannot_act(self) -> ObjectiveConfig:
        problems = [*self._check_timesteps(), *self._check_loss()]
        if problems:
            raise ValueError(problems[0])
        return self

    def _check_timesteps(self) -> Iterator[str]:
        law = self.timesteps or "sigmoid"
        for name, laws in OF_LAWS.items():
            if getattr(self, name) != ObjectiveConfig.model_fields[name].default and law not in laws:
                yield f'{name} has no effect with timesteps = "{law}"; remove it or set timesteps = "{laws[0]}"'
        if self.timesteps == "shift" and not isinstance(self.shift, float):
            yield 'timesteps = "shift" needs a number for shift; set it, for example shift = 3.0, or set timesteps = "token_shift"'
        if self.shift is not None and law in ("token_shift", "fast", "list"):
            yield f'shift has no effect with timesteps = "{law}"; remove it or set timesteps = "sigmoid"'
        if law == "cubic" and (not self.cubic_weights or sum(self.cubic_weights) == 0):
            yield 'timesteps = "cubic" needs cubic_weights; set them, for example cubic_weights = [0.5, 1.0, 0.5]'
        if law == "list" and not self.timestep_list:
            yield 'timesteps = "list" needs timestep_list; set it, for example timestep_list = [1.0, 0.75, 0.5, 0.25]'
        if self.stratified and law == "list" and self.timestep_order == "cycle":
            yield 'stratified has no effect with timestep_order = "cycle", which draws nothing; remove one of them'
        if self.guidance_range is not None and self.guidance is not None:
            yield "guidance and guidance_range both say what guidance is; remove one of them"
        if self.guidance_range is not None and self.guidance_range[0] >= self.guidance_range[1]:
            yield f"guidance_range = {list(self.guidance_range)} is no range; write the lower value first, such as [1.0, 4.0]"

    def _check_loss(self) -> Iterator[str]:
        if self.loss not in ("huber", "smooth_l1"):
            for name in ("huber_c", "huber_schedule"):
                if getattr(self, name) != ObjectiveConfig.model_fields[name].default:
                    yield f'{name} has no effect with loss = "{self.loss}"; set loss = "huber" or remove it'
