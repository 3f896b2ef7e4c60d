"""The base model, what is asked of the network, and how long: options of kohya's scripts as settings of weber."""

from __future__ import annotations

from typing import Any

from weber.config.importers.answers import Call, Table, ignored, refused, stated, translated, used
from weber.config.importers.draft import NO_EFFECT, REFUSED, Draft, Keys
from weber.config.importers.processes import set_accumulation
from weber.config.importers.values import read_float, read_int
from weber.errors import ConfigError


def is_schnell(keys: Keys) -> bool:
    """Whether the name of the model says that it is FLUX.1 schnell."""
    return "schnell" in str(keys["pretrained_model_name_or_path"] or "").lower()


def _put_model(draft: Draft, keys: Keys, value: Any) -> str:
    """`pretrained_model_name_or_path`."""
    origin = keys.find("pretrained_model_name_or_path")
    line = draft.set("model.path", str(value).strip(), origin=origin)
    if is_schnell(keys) and not draft.weber_defaults:
        line += "; " + draft.set("model.assistant", "off", origin="kohya's scripts know no assistant")
    return line


def _put_tokens(draft: Draft, keys: Keys, value: Any) -> str:
    """`t5xxl_max_token_length`."""
    number = read_int(value, name="t5xxl_max_token_length")
    if number == (256 if is_schnell(keys) else 512):
        return NO_EFFECT + "what the model was made for, here as there"
    return draft.set("model.text_tokens", number, origin=keys.find("t5xxl_max_token_length"))


MODEL: Table = {
    "pretrained_model_name_or_path": translated(_put_model, "model.path"),
    "clip_l": used("model.text_encoder"),
    "t5xxl": used("model.text_encoder_2"),
    "ae": used("model.vae"),
    "t5xxl_max_token_length": translated(_put_tokens, "model.text_tokens"),
    "apply_t5_attn_mask": used("objective.text_mask", off=(False, 0, "false", "False")),
    "tokenizer_cache_dir": ignored("tokenizers are found with the model, or in the folder of the hub's own cache"),
    "model_type": ignored("flux, the only one that is read"),
    "disable_mmap_load_safetensors": ignored("how files are read"),
    "vae": ignored("is for Stable Diffusion; FLUX has --ae"),
    "v2 v_parameterization sdxl clip_g": ignored("is for Stable Diffusion"),
    "controlnet_model_name_or_path": ignored("is for flux_train_control_net.py"),
}
"""The base model."""


# ---- the objective

_LAWS = {"uniform": "uniform", "sigmoid": "sigmoid", "shift": "shift", "flux_shift": "token_shift"}


def _put_sampling(draft: Draft, keys: Keys, value: Any) -> str:
    """`timestep_sampling`: the law of noise levels."""
    name, origin = str(value).strip().lower(), keys.find("timestep_sampling")
    if name == "sigma":
        return _put_sigma(draft, keys)
    if name not in _LAWS:
        raise ConfigError(
            f"{origin.spelled} is no law of noise levels that kohya's scripts have.",
            got=origin.text,
            expected=", ".join(("sigma", *_LAWS)),
            fix=f"correct {origin.spelled}",
        )
    return draft.set("objective.timesteps", _LAWS[name], origin=origin)


def _put_sigma(draft: Draft, keys: Keys) -> str:
    """Draws from the table of noise levels, from pure noise down: u by `weighting_scheme`, t = 1 - u, shifted by `discrete_flow_shift`."""
    scheme, origin = str(keys["weighting_scheme"] or "uniform"), keys.find("timestep_sampling")
    law = scheme if scheme in ("logit_normal", "mode") else "uniform"
    lines = [draft.set("objective.timesteps", law, origin=origin)]
    if law == "logit_normal":
        mean, std = -(keys.read_float("logit_mean") or 0.0), keys.read_float("logit_std") or 1.0
        lines += [draft.set("objective.logit_mean", mean, origin=keys.find("logit_mean"))] if mean else []
        lines += [draft.set("objective.logit_std", std, origin=keys.find("logit_std"))] if std != 1 else []
    if law == "mode":
        lines.append(draft.set("objective.mode_scale", keys.read_float("mode_scale") or 1.29, origin=keys.find("mode_scale")))
    return "; ".join(lines)


def _put_scheme(draft: Draft, keys: Keys, value: Any) -> str:
    """`weighting_scheme`: a law with `sigma`, a weight of the loss with `sigma_scaled`."""
    scheme = str(value).strip()
    if scheme in ("logit_normal", "mode"):
        if keys["timestep_sampling"] == "sigma":
            return f'objective.timesteps = "{scheme}"'
        return NO_EFFECT + 'is read with timestep_sampling = "sigma"'
    if scheme not in ("sigma_sqrt", "cosmap"):
        return NO_EFFECT + "every noise level weighs the same, here as there"
    if keys["model_prediction_type"] != "sigma_scaled":
        return NO_EFFECT + 'is read with model_prediction_type = "sigma_scaled"'
    return draft.set("objective.weighting", scheme, origin=keys.find("weighting_scheme"))


def _with_scheme(name: str, scheme: str, *, sign: str = "") -> Call:
    def answer(draft: Draft, keys: Keys, value: Any) -> str:
        if keys["timestep_sampling"] == "sigma" and keys["weighting_scheme"] == scheme:
            return f"objective.{name} = {sign}{read_float(value, name=name):g}" + (", the other way round" if sign else "")
        return NO_EFFECT + f'is read with timestep_sampling = "sigma" and weighting_scheme = "{scheme}"'

    return answer


def _put_sigmoid_scale(draft: Draft, keys: Keys, value: Any) -> str:
    """`sigmoid_scale`."""
    if keys["timestep_sampling"] not in ("sigmoid", "shift", "flux_shift"):
        return NO_EFFECT + f'has no part in timestep_sampling = "{keys["timestep_sampling"]}"'
    return draft.set("objective.sigmoid_scale", read_float(value, name="sigmoid_scale"), origin=keys.find("sigmoid_scale"))


def _put_shift(draft: Draft, keys: Keys, value: Any) -> str:
    """`discrete_flow_shift`: of `shift`, and of the table that `sigma` draws from."""
    if keys["timestep_sampling"] not in ("shift", "sigma"):
        return NO_EFFECT + f'has no part in timestep_sampling = "{keys["timestep_sampling"]}", there as here'
    shift = read_float(value, name="discrete_flow_shift")
    if shift == 1 and keys["timestep_sampling"] == "sigma":
        return NO_EFFECT + "1 shifts nothing"
    return draft.set("objective.shift", shift, origin=keys.find("discrete_flow_shift"))


def _put_prediction(draft: Draft, keys: Keys, value: Any) -> str:
    """`model_prediction_type`: the velocity is what FLUX says."""
    if str(value) == "raw":
        return "what the network says is the velocity, here in any case"
    return REFUSED + f'with "{value}" the scripts compare another quantity with the velocity; here it is the velocity itself, as with "raw"'


def _put_guidance(draft: Draft, keys: Keys, value: Any) -> str:
    """`guidance_scale`."""
    if is_schnell(keys):
        return NO_EFFECT + "schnell has no guidance input"
    return draft.set("objective.guidance", read_float(value, name="guidance_scale"), origin=keys.find("guidance_scale"))


def put_huber(name: str) -> Call:
    """`huber_c`, `huber_schedule`, `huber_scale`: of two losses."""

    def put(draft: Draft, keys: Keys, value: Any) -> str:
        if keys["loss_type"] not in ("huber", "smooth_l1"):
            return NO_EFFECT + "is for loss_type huber and smooth_l1"
        schedule, scale = str(keys["huber_schedule"] or "snr"), keys.read_float("huber_scale") or 1.0
        if name == "huber_schedule":
            if schedule == "snr":
                return REFUSED + 'the scripts stop at it with FLUX; objective.huber_schedule = "constant" is taken'
            return draft.set("objective.huber_schedule", schedule, origin=keys.find(name))
        if name == "huber_scale":
            if scale == 1 or schedule != "exponential":
                return NO_EFFECT + ("1 changes nothing" if scale == 1 else "is in objective.huber_c")
            return REFUSED + "weber's exponential schedule has no scale"
        worth = read_float(value, name=name) * (1 if schedule == "exponential" else scale)
        return draft.set("objective.huber_c", worth, origin=keys.find(name))

    return put


_TABLE = "it needs a table of signal and noise, which FLUX does not have: the scripts for FLUX do not read it"

OBJECTIVE: Table = {
    "timestep_sampling": translated(_put_sampling, "objective.timesteps; sigma: uniform or as weighting_scheme says, with objective.shift"),
    "weighting_scheme": translated(_put_scheme, "objective.timesteps with sigma, objective.weighting with sigma_scaled"),
    "logit_mean": translated(_with_scheme("logit_mean", "logit_normal", sign="-"), "objective.logit_mean, with the other sign"),
    "logit_std": translated(_with_scheme("logit_std", "logit_normal"), "objective.logit_std"),
    "mode_scale": translated(_with_scheme("mode_scale", "mode"), "objective.mode_scale"),
    "sigmoid_scale": translated(_put_sigmoid_scale, "objective.sigmoid_scale"),
    "discrete_flow_shift": translated(_put_shift, "objective.shift, with shift and sigma alone"),
    "model_prediction_type": translated(_put_prediction, "raw is what weber does; the others cannot be had"),
    "guidance_scale": translated(_put_guidance, "objective.guidance"),
    "loss_type": used("objective.loss", off=("l2",)),
    "huber_c": translated(put_huber("huber_c"), "objective.huber_c and huber_schedule"),
    "huber_schedule": translated(put_huber("huber_schedule"), "objective.huber_schedule"),
    "huber_scale": translated(put_huber("huber_scale"), "in objective.huber_c"),
    "masked_loss": translated(
        lambda draft, keys, value: "masks of the sets count", "data.N.loss_masks or alpha_mask", off=(False, None, "")
    ),
    "ip_noise_gamma ip_noise_gamma_random_strength": refused("weber adds no other noise to the input than that of its level"),
    "noise_offset noise_offset_type noise_offset_random_strength adaptive_noise_scale multires_noise_iterations multires_noise_discount "
    "perlin_noise": ignored("the scripts for FLUX do not read it"),
    "min_timestep max_timestep": ignored("the scripts for FLUX do not read it: all noise levels are trained"),
    "min_snr_gamma debiased_estimation_loss zero_terminal_snr scale_v_pred_loss_like_noise_pred v_pred_like_loss": ignored(_TABLE),
    "weighted_captions clip_skip max_token_length": ignored("the scripts for FLUX do not read it"),
    "enable_contrastive negative_sampling_method noise_strength contrastive_weight contrastive_warmup_steps": refused(
        "weber has no contrastive loss"
    ),
}
"""What is asked of the network."""


# ---- length


def _put_steps(draft: Draft, keys: Keys, value: Any) -> str:
    """`max_train_steps`, unless epochs say how long."""
    if "max_train_epochs" in keys:
        return NO_EFFECT + "max_train_epochs counts"
    return draft.set("train.steps", read_int(value, name="max_train_steps"), origin=keys.find("max_train_steps"))


def _put_evaluation_epochs(draft: Draft, keys: Keys, value: Any) -> str:
    """`validate_every_n_epochs`."""
    if "validate_every_n_steps" in keys:
        return NO_EFFECT + "validate_every_n_steps counts"
    number = read_int(value, name="validate_every_n_epochs")
    return draft.set("evaluation.every", "1 epoch" if number == 1 else f"{number} epochs", origin=keys.find("validate_every_n_epochs"))


LENGTH: Table = {
    "max_train_steps": translated(_put_steps, "train.steps, unless max_train_epochs is given"),
    "max_train_epochs": used("train.epochs"),
    "gradient_accumulation_steps": stated(set_accumulation, "train.accumulation, times the processes", off=(1,)),
    "seed": used("train.seed"),
    "initial_epoch initial_step skip_until_initial_step": refused("weber goes on from its own checkpoints: `weber resume`"),
    "resume resume_from_huggingface": refused("no state of the scripts can be read; adapter.start_from takes the LoRA that was saved last"),
    "epoch stop_text_encoder_training": ignored("the scripts do not read it"),
    "validate_every_n_steps": used("evaluation.every"),
    "validate_every_n_epochs": translated(_put_evaluation_epochs, 'evaluation.every = "2 epochs", unless steps are given'),
    "max_validation_steps": ignored("evaluation.pictures says how many pictures are measured each time"),
}
"""How long it trains."""
