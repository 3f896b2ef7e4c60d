"""OneTrainer's keys of the optimizer, the noise levels, the loss and the length of a run: what each becomes here."""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping
from typing import Any

from weber.config.importers.answers import Call
from weber.config.importers.draft import NO_EFFECT, REFUSED, Draft, Keys
from weber.config.importers.onetrainer.read import is_flux2, is_full, is_klein
from weber.config.importers.values import read_bool, read_float, read_int
from weber.config.optimizers import FACTS, read_optimizer_name
from weber.errors import ConfigError

_NOTHING = "asks for nothing, here as there"

_OPTIONS: Mapping[str, tuple[str, ...]] = {
    "PRODIGY": ("d0", "d_coef", "growth_rate", "decouple", "use_bias_correction", "safeguard_warmup", "beta3"),
    "SGD": ("momentum", "dampening", "nesterov"),
    "SGD_8BIT": ("momentum", "dampening", "nesterov"),
}
"""Optimizers of libraries -> their further settings that weber hands on."""


def _read_name(keys: Keys) -> str:
    return (keys.read_text("optimizer.optimizer") or keys.read_text("optimizer") or "ADAMW").upper()


def _find_ours(keys: Keys) -> str | None:
    try:
        return read_optimizer_name(_read_name(keys))
    except ValueError:
        return None


def set_optimizer(draft: Draft, keys: Keys, *, value: Any) -> str:
    """The optimizer."""
    try:
        ours = read_optimizer_name(_read_name(keys))
    except ValueError as error:
        return f"{REFUSED}{error}; until then the run has weber's adamw"
    name = "optimizer.optimizer" if "optimizer.optimizer" in keys or "optimizer" not in keys else "optimizer"
    return draft.set("optim.name", ours, origin=keys.find(name))


def set_betas(draft: Draft, keys: Keys, *, value: Any) -> str:
    """Both decays in one list."""
    ours = _find_ours(keys)
    facts = None if ours is None else FACTS[ours]
    if facts is None or facts.betas is None or len(facts.betas) != 2:
        return f"{NO_EFFECT}the optimizer has no such decays, or cannot be had"
    one, two = keys["optimizer.beta1"], keys["optimizer.beta2"]
    betas = [facts.betas[0] if one is None else float(one), facts.betas[1] if two is None else float(two)]
    if betas == list(facts.betas):
        return f"{NO_EFFECT}they are the usual ones"
    name = "optimizer.beta1" if "optimizer.beta1" in keys else "optimizer.beta2"
    return draft.set("optim.betas", betas, origin=keys.find(name))


def for_number(name: str, key: str) -> Call:
    """A number that most optimizers have."""

    def call(draft: Draft, keys: Keys, value: Any) -> str:
        ours = _find_ours(keys)
        if ours is None:
            return f"{NO_EFFECT}the optimizer itself cannot be had"
        usual = {"eps": FACTS[ours].eps, "weight_decay": FACTS[ours].weight_decay}[name]
        number = read_float(value, name=f"optimizer.{name}")
        if usual is None or (name == "eps" and ours == "adafactor"):
            return f"{NO_EFFECT}weber's optimizer has no such setting"
        if number == usual or (name == "eps" and number <= 0):
            return f"{NO_EFFECT}it is the usual one"
        return draft.set(key, number, origin=keys.find(f"optimizer.{name}"))

    return call


def set_option(draft: Draft, keys: Keys, *, value: Any) -> str:
    """Further settings of an optimizer of a library."""
    ours, options = _find_ours(keys), dict[str, Any]()
    for name in _OPTIONS.get(_read_name(keys), ()):
        one = keys[f"optimizer.{name}"]
        if one is not None and ours is not None:
            options[name] = one
    if not options:
        return f"{NO_EFFECT}it is for another optimizer, or weber's has no such setting"
    first = next(f"optimizer.{name}" for name in options)
    draft.set("optim.options", options, origin=keys.find(first))
    return f"in optim.options, with {', '.join(options)}"


def set_fused(draft: Draft, keys: Keys, *, value: Any) -> str:
    """Weights that move as soon as their gradient is there."""
    if not _is_fused(keys):
        return f"{NO_EFFECT}{_NOTHING}, or weber's optimizer moves all weights at once"
    draft.set("optim.clip_norm", "off", origin="each gradient is used as it arrives")
    return draft.set("optim.fused_backward", True, origin=keys.find("optimizer.fused_back_pass"))


def _is_fused(keys: Keys) -> bool:
    ours = _find_ours(keys)
    is_one = (keys.read_int("gradient_accumulation_steps") or 1) == 1
    return keys.read_bool("optimizer.fused_back_pass") and is_one and ours is not None and FACTS[ours].is_own


_SCALES: Mapping[str, Callable[[int, int], int]] = {
    "NONE": lambda batch, steps: 1,
    "BATCH": lambda batch, steps: batch,
    "GLOBAL_BATCH": lambda batch, steps: batch,
    "GRADIENT_ACCUMULATION": lambda batch, steps: steps,
    "BOTH": lambda batch, steps: batch * steps,
    "GLOBAL_BOTH": lambda batch, steps: batch * steps,
}


def find_rate(keys: Keys) -> float:
    """The learning rate that acts: the transformer's own, scaled as the file asks."""
    own = keys.read_float("transformer.learning_rate")
    rate = keys.read_float("learning_rate") or 3e-6 if own is None else own
    scale = _SCALES.get((keys.read_text("learning_rate_scaler") or "NONE").upper(), _SCALES["NONE"])
    return rate * scale(keys.read_int("batch_size") or 1, keys.read_int("gradient_accumulation_steps") or 1)


def set_rate(draft: Draft, keys: Keys, *, value: Any) -> str:
    """The learning rate."""
    name = "transformer.learning_rate" if "transformer.learning_rate" in keys else "learning_rate"
    ours, rate = _find_ours(keys), find_rate(keys)
    if ours is None:
        return f"{NO_EFFECT}it is a rate of an optimizer that weber does not have; the usual one is taken"
    if FACTS[ours].fixed_lr == 1 and not FACTS[ours].has_rates and rate < 0.01:
        return f"{REFUSED}of an optimizer that finds its rate itself it is a factor; {rate:g} would all but stop it, 1.0 is taken"
    return draft.set("optim.lr", rate, origin=keys.find(name))


def name_own_rate(draft: Draft, keys: Keys, *, value: Any) -> str:
    """The transformer's own rate, which goes before the common one."""
    return f"optim.lr = {find_rate(keys):g}"


def set_scaler(draft: Draft, keys: Keys, *, value: Any) -> str:
    """The rate, multiplied by the pictures of a step."""
    return f"{NO_EFFECT}{_NOTHING}" if str(value).upper() == "NONE" else f"in optim.lr = {find_rate(keys):g}"


def _read_schedule(keys: Keys) -> str:
    return (keys.read_text("learning_rate_scheduler") or "CONSTANT").upper()


def _is_free(keys: Keys) -> bool:
    ours = _find_ours(keys)
    return ours is not None and FACTS[ours].is_mean


def set_schedule(draft: Draft, keys: Keys, *, value: Any) -> str:
    """The course of the rate."""
    schedule, origin = _read_schedule(keys), keys.find("learning_rate_scheduler")
    if _is_free(keys):
        return f"{NO_EFFECT}a schedule-free optimizer keeps its rate, there as here"
    match schedule:
        case "CONSTANT" | "LINEAR" | "COSINE":
            return draft.set("optim.schedule", schedule.lower(), origin=origin)
        case "ADAFACTOR":
            return draft.set("optim.schedule", "constant", origin=origin) + ": weber's adafactor takes its rate from optim.lr"
        case "COSINE_WITH_HARD_RESTARTS":
            cycles = round(keys.read_float("learning_rate_cycles") or 1)
            if cycles < 2:
                return draft.set("optim.schedule", "cosine", origin=origin)
            line = draft.set("optim.schedule", "cosine_with_restarts", origin=origin)
            return f"{line}, {draft.set('optim.cycles', cycles, origin=keys.find('learning_rate_cycles'))}"
        case _:
            return f"{REFUSED}weber's rates go down once, from optim.lr to optim.end_lr: the rate is constant here; the nearest is cosine"


def set_end_rate(draft: Draft, keys: Keys, *, value: Any) -> str:
    """The rate at the end, as a share of the first."""
    factor = read_float(value, name="learning_rate_min_factor")
    falls = _read_schedule(keys) in ("LINEAR", "COSINE", "COSINE_WITH_HARD_RESTARTS") and not _is_free(keys)
    if factor <= 0 or not falls:
        return f"{NO_EFFECT}the rate goes down to 0, or does not go down"
    return draft.set("optim.end_lr", min(factor, 1.0) * find_rate(keys), origin=keys.find("learning_rate_min_factor"))


def set_warmup(draft: Draft, keys: Keys, *, value: Any) -> str:
    """Steps of warm-up: above 1 a number of batches, else a share of the run."""
    number = read_float(value, name="learning_rate_warmup_steps")
    if number <= 0 or _is_free(keys):
        return f"{NO_EFFECT}there is no warm-up"
    if number <= 1:
        return f"{REFUSED}it is a share of the run there: write optim.warmup_steps, {number:g} times the steps that `weber plan` says"
    steps = int(number / (keys.read_int("gradient_accumulation_steps") or 1))
    return draft.set("optim.warmup_steps", steps, origin=keys.find("learning_rate_warmup_steps"))


def set_clip(draft: Draft, keys: Keys, *, value: Any) -> str:
    """The largest norm of all gradients."""
    if _is_fused(keys):
        return f"{NO_EFFECT}with a fused back pass OneTrainer clips each tensor by itself, and weber not at all"
    limit = read_float(value, name="clip_grad_norm")
    if limit == 1:
        return f"{NO_EFFECT}1.0 is the default here"
    return draft.set("optim.clip_norm", limit if limit > 0 else "off", origin=keys.find("clip_grad_norm"))


def set_ema(draft: Draft, keys: Keys, *, value: Any) -> str:
    """The running mean; OneTrainer moves it at every fifth step, weber at each."""
    mode = str(value).strip().upper()
    if mode == "OFF" or _is_free(keys):
        return f"{NO_EFFECT}no running mean is kept"
    decay = 0.999 if keys["ema_decay"] is None else keys.read_float("ema_decay") or 0.999
    interval = 5 if keys["ema_update_step_interval"] is None else keys.read_int("ema_update_step_interval") or 1
    line = draft.set("optim.ema_decay", decay ** (1 / interval), origin=keys.find("ema"))
    if mode == "GPU":
        line += ", " + draft.set("optim.ema_on", "device", origin=keys.find("ema"))
    return f"{line}: {decay:g} at every step of {interval} there"


def name_ema(draft: Draft, keys: Keys, *, value: Any) -> str:
    """A part of the running mean."""
    is_off = (keys.read_text("ema") or "OFF").upper() == "OFF"
    return f"{NO_EFFECT}no running mean is kept" if is_off else "in optim.ema_decay"


# ---- noise levels


def _read_law(keys: Keys) -> tuple[str, float, float]:
    law = (keys.read_text("timestep_distribution") or "UNIFORM").upper()
    return law, keys.read_float("noising_weight") or 0.0, keys.read_float("noising_bias") or 0.0


def set_law(draft: Draft, keys: Keys, *, value: Any) -> str:
    """The law of noise levels, with what weight and bias mean for it."""
    law, weight, bias = _read_law(keys)
    origin = keys.find("timestep_distribution")
    match law:
        case "UNIFORM":
            return draft.set("objective.timesteps", "uniform", origin=origin)
        case "LOGIT_NORMAL":
            lines = [draft.set("objective.timesteps", "logit_normal", origin=origin)]
            lines += [draft.set("objective.logit_mean", bias, origin=keys.find("noising_bias"))] if bias else []
            lines += [draft.set("objective.logit_std", weight + 1, origin=keys.find("noising_weight"))] if weight else []
            return ", ".join(lines)
        case "HEAVY_TAIL":
            line = draft.set("objective.timesteps", "mode", origin=origin)
            return f"{line}, {draft.set('objective.mode_scale', min(max(weight, -1.0), 1.75), origin=keys.find('noising_weight'))}"
        case "COS_MAP":
            return draft.set("objective.timesteps", "cosmap", origin=origin)
        case "BETA":
            line = draft.set("objective.timesteps", "beta", origin=origin)
            shape = [max(1e-4, weight), max(1e-4, bias)]
            return f"{line}, {draft.set('objective.beta_shape', shape, origin=keys.find('noising_weight'))}"
        case "SIGMOID" | "INVERTED_PARABOLA":
            line = draft.set("objective.timesteps", "cubic", origin=origin)
            draft.set("objective.cubic_weights", build_densities(law, weight=weight, bias=bias, shift=find_shift(keys)), origin=origin)
            return f"{line}, with its densities as objective.cubic_weights"
        case _:
            raise ConfigError(
                f"timestep_distribution = {law} is no law of OneTrainer.",
                got=origin.text,
                expected="UNIFORM, SIGMOID, LOGIT_NORMAL, HEAVY_TAIL, COS_MAP, INVERTED_PARABOLA or BETA",
                fix="correct timestep_distribution",
            )


_POINTS = 21


def build_densities(law: str, *, weight: float, bias: float, shift: float) -> list[float]:
    """Densities at equal distances, before the shift. OneTrainer shifts those of SIGMOID twice."""
    levels = [number / (_POINTS - 1) for number in range(_POINTS)]
    if law == "SIGMOID":
        levels = [one / (shift - shift * one + one) for one in levels]
        return [round(1 / (1 + math.exp(-weight * (one - bias - 0.5))), 6) for one in levels]
    return [round(max(0.0, 2 - weight * (one - bias - 0.5) ** 2), 6) for one in levels]


def name_law(draft: Draft, keys: Keys, *, value: Any) -> str:
    """Weight and bias are of the law."""
    law = _read_law(keys)[0]
    if law in ("UNIFORM", "COS_MAP"):
        return f"{NO_EFFECT}the law {law} has no such parameter"
    return f"in the settings of the law {law}" if read_float(value, name="it") != 0 else f"{NO_EFFECT}0 changes nothing"


def find_shift(keys: Keys) -> float:
    """The shift as a number; 1 where it follows the number of tokens."""
    return 1.0 if keys.read_bool("dynamic_timestep_shifting") else keys.read_float("timestep_shift") or 1.0


def set_shift(draft: Draft, keys: Keys, *, value: Any) -> str:
    """How far noise levels are pushed to noise."""
    if keys.read_bool("dynamic_timestep_shifting"):
        return f"{NO_EFFECT}dynamic_timestep_shifting goes before it"
    shift = read_float(value, name="timestep_shift")
    return f"{NO_EFFECT}1 shifts nothing" if shift == 1 else draft.set("objective.shift", shift, origin=keys.find("timestep_shift"))


def set_dynamic(draft: Draft, keys: Keys, *, value: Any) -> str:
    """The shift by the number of tokens."""
    if not read_bool(value, name="dynamic_timestep_shifting"):
        return f"{NO_EFFECT}{_NOTHING}"
    return draft.set("objective.shift", "tokens", origin=keys.find("dynamic_timestep_shifting"))


def set_guidance(draft: Draft, keys: Keys, *, value: Any) -> str:
    """The guidance that the model is told while it is trained."""
    guidance = read_float(value, name="transformer.guidance_scale")
    if is_klein(keys):
        return f"{NO_EFFECT}the model has no guidance input"
    if guidance == 1:
        return f"{NO_EFFECT}1.0 is the default here too"
    return draft.set("objective.guidance", guidance, origin=keys.find("transformer.guidance_scale"))


# ---- loss

_LOSSES = {"mse_strength": "l2", "mae_strength": "l1", "huber_strength": "huber", "log_cosh_strength": "log_cosh"}


def set_loss(draft: Draft, keys: Keys, *, value: Any) -> str:
    """One loss, where OneTrainer adds several."""
    strengths = {name: 1.0 if name == "mse_strength" and keys[name] is None else keys.read_float(name) or 0.0 for name in _LOSSES}
    acting = [name for name, strength in strengths.items() if strength > 0]
    if not acting:
        raise ConfigError("all losses have a strength of 0.", got="mse_strength = 0", expected="one above 0", fix="set mse_strength = 1")
    best = max(acting, key=lambda name: (strengths[name], name == "mse_strength"))
    if _LOSSES[best] == "log_cosh":
        return f'{REFUSED}weber has no such loss; the nearest is objective.loss = "huber"'
    line = draft.set("objective.loss", _LOSSES[best], origin=keys.find(best))
    if best == "huber_strength" and keys["huber_delta"] is not None:
        line += ", " + draft.set("objective.huber_c", keys.read_float("huber_delta"), origin=keys.find("huber_delta"))
    if len(acting) > 1:
        return f"{REFUSED}weber has one loss at once, the strongest: {line}"
    return line if strengths[best] == 1 else f"{line}; a strength changes nothing under an optimizer that divides by its gradients"


def name_huber(draft: Draft, keys: Keys, *, value: Any) -> str:
    """Where the Huber loss bends."""
    return "in objective.huber_c" if (keys.read_float("huber_strength") or 0) > 0 else f"{NO_EFFECT}it is for huber_strength"


def set_weighting(draft: Draft, keys: Keys, *, value: Any) -> str:
    """Weights by noise level."""
    word = str(value).strip().upper()
    if word == "CONSTANT":
        return f"{NO_EFFECT}all noise levels weigh the same, as here by default"
    return f"{REFUSED}weber weighs by sigma_sqrt or cosmap: objective.weighting; all noise levels weigh the same here"


# ---- length, text encoders


def set_epochs(draft: Draft, keys: Keys, *, value: Any) -> str:
    """Passes over the data."""
    return draft.set("train.epochs", read_int(value, name="epochs"), origin=keys.find("epochs"))


def set_clip_training(draft: Draft, keys: Keys, *, value: Any) -> str:
    """CLIP with an adapter of its own."""
    if not read_bool(value, name="text_encoder.train"):
        return f"{NO_EFFECT}{_NOTHING}"
    if is_flux2(keys):
        return f"{NO_EFFECT}OneTrainer trains no text encoder of FLUX.2"
    if is_full(keys) or (keys.read_text("peft_type") or "LORA").upper() != "LORA" or keys.read_bool("lora_decompose"):
        return f"{REFUSED}weber trains CLIP beside a plain LoRA alone"
    return draft.set("adapter.text_encoder", True, origin=keys.find("text_encoder.train"))


def set_clip_rate(draft: Draft, keys: Keys, *, value: Any) -> str:
    """CLIP's own rate."""
    line = set_clip_training(draft, keys, value=keys["text_encoder.train"]) if keys["text_encoder.train"] is not None else NO_EFFECT
    if line.startswith((NO_EFFECT, REFUSED)):
        return f"{NO_EFFECT}CLIP does not learn"
    return draft.set("optim.text_encoder_lr", read_float(value, name="it"), origin=keys.find("text_encoder.learning_rate"))


def refuse_t5(draft: Draft, keys: Keys, *, value: Any) -> str:
    """T5 does not learn here."""
    if not read_bool(value, name="text_encoder_2.train") or is_flux2(keys):
        return f"{NO_EFFECT}{_NOTHING}"
    return f"{REFUSED}weber trains the transformer, and CLIP with adapter.text_encoder = true; T5 stays as it is"


def set_dropout(draft: Draft, keys: Keys, *, value: Any) -> str:
    """The empty caption in place of the picture's own; there what the text encoders say becomes nothing."""
    first, second = keys.read_float("text_encoder.dropout_probability") or 0.0, keys.read_float("text_encoder_2.dropout_probability") or 0.0
    name = "text_encoder_2.dropout_probability" if second > 0 and not is_flux2(keys) else "text_encoder.dropout_probability"
    chance = first if is_flux2(keys) else second
    if chance <= 0:
        return f"{NO_EFFECT}{_NOTHING}" if first <= 0 else f"{REFUSED}CLIP's text alone is not left out here: data.N.caption_dropout"
    for number in range(len(draft.tree.get("data") or [])):
        draft.set(f"data.{number}.caption_dropout", chance, origin=keys.find(name))
    return f"caption_dropout = {chance:g} in each set: an empty caption here, nothing at all there"
