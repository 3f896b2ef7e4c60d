"""SimpleTuner's options of noise levels, guidance and loss: what each becomes here."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from weber.config.importers.draft import NO_EFFECT, REFUSED, Draft, Keys
from weber.config.importers.simpletuner.facts import find_flavour, is_flux2, read_structure, takes_guidance
from weber.config.importers.values import read_float, read_int, read_texts
from weber.errors import ConfigError

_WHOLE = 1000.0
"""Noise levels above 1 are counted in thousandths there."""


def find_law(keys: Keys) -> str:
    """Which law draws noise levels, in the order in which SimpleTuner asks."""
    if "flow_custom_timesteps" in keys:
        return "list"
    if "flow_cubic_schedule_weights" in keys:
        return "cubic"
    if keys.read_bool("flow_use_uniform_schedule"):
        return "uniform"
    if keys.read_bool("flow_use_beta_schedule"):
        return "beta"
    if keys.read_bool("flux_fast_schedule") or ("flux_fast_schedule" not in keys and find_flavour(keys) == "schnell"):
        return "fast"
    return "sigmoid"


def set_sigmoid(draft: Draft, keys: Keys, *, value: Any) -> str:
    """The law that is taken where no other is asked for."""
    origin, scale = keys.find("flow_sigmoid_scale"), read_float(value, name="flow_sigmoid_scale")
    if find_law(keys) != "sigmoid":
        return f"{NO_EFFECT}noise levels are drawn by another law"
    line = draft.set("objective.timesteps", "sigmoid", origin=origin)
    return line if scale == 1 else f"{line}, {draft.set('objective.sigmoid_scale', scale, origin=origin)}"


def set_uniform(draft: Draft, keys: Keys, *, value: Any) -> str:
    """All noise levels are as likely."""
    if find_law(keys) != "uniform":
        return f"{NO_EFFECT}asks for nothing, or another law goes before it"
    return draft.set("objective.timesteps", "uniform", origin=keys.find("flow_use_uniform_schedule"))


def set_beta(draft: Draft, keys: Keys, *, value: Any) -> str:
    """The beta law with both of its parameters."""
    if find_law(keys) != "beta":
        return f"{NO_EFFECT}asks for nothing, or another law goes before it"
    origin = keys.find("flow_use_beta_schedule")
    shape = [keys.read_float("flow_beta_schedule_alpha") or 2.0, keys.read_float("flow_beta_schedule_beta") or 2.0]
    line = draft.set("objective.timesteps", "beta", origin=origin)
    return line if shape == [2.0, 2.0] else f"{line}, {draft.set('objective.beta_shape', shape, origin=origin)}"


def name_beta(draft: Draft, keys: Keys, *, value: Any) -> str:
    """One of its parameters."""
    return "in objective.beta_shape" if find_law(keys) == "beta" else f"{NO_EFFECT}it is for flow_use_beta_schedule"


def set_fast(draft: Draft, keys: Keys, *, value: Any) -> str:
    """Four steps of a distilled model."""
    if find_law(keys) != "fast":
        return f"{NO_EFFECT}asks for nothing, or another law goes before it"
    return draft.set("objective.timesteps", "fast", origin=keys.find("flux_fast_schedule"))


def set_cubic(draft: Draft, keys: Keys, *, value: Any) -> str:
    """A curve through densities."""
    origin = keys.find("flow_cubic_schedule_weights")
    if find_law(keys) != "cubic":
        return f"{NO_EFFECT}flow_custom_timesteps goes before it"
    weights = _read_numbers(value, name="flow_cubic_schedule_weights")
    line = draft.set("objective.timesteps", "cubic", origin=origin)
    return f"{line}, {draft.set('objective.cubic_weights', weights, origin=origin)}"


def set_list(draft: Draft, keys: Keys, *, value: Any) -> str:
    """Noise levels of a list."""
    origin = keys.find("flow_custom_timesteps")
    levels = _read_numbers(value, name="flow_custom_timesteps")
    if max(levels) > 1:
        levels = [min(one, _WHOLE) / _WHOLE for one in levels]
    lines = [draft.set("objective.timesteps", "list", origin=origin), draft.set("objective.timestep_list", levels, origin=origin)]
    if (keys.read_text("flow_timesteps_mode") or "fixed-list").replace("_", "-") == "round-robin":
        lines.append(draft.set("objective.timestep_order", "cycle", origin=keys.find("flow_timesteps_mode")))
    return ", ".join(lines)


def name_list_order(draft: Draft, keys: Keys, *, value: Any) -> str:
    """Whether one of a list is drawn, or each has its turn."""
    if find_law(keys) != "list":
        return f"{NO_EFFECT}it is for flow_custom_timesteps"
    if str(value).replace("_", "-") == "round-robin":
        return "in objective.timestep_order"
    return f"{NO_EFFECT}one is drawn, as here by default"


def _read_numbers(value: Any, *, name: str) -> list[float]:
    parts = read_texts(read_structure(value, name=name))
    numbers = [read_float(one, name=name) for one in parts]
    if not numbers:
        raise ConfigError(f"{name} holds no numbers.", got=str(value), expected="numbers with commas between them", fix=f"correct {name}")
    return numbers


def set_shift(draft: Draft, keys: Keys, *, value: Any) -> str:
    """How far noise levels are pushed to noise."""
    shift, origin = read_float(value, name="flow_schedule_shift"), keys.find("flow_schedule_shift")
    if find_law(keys) in ("list", "fast"):
        return f"{NO_EFFECT}SimpleTuner does not shift these noise levels"
    if keys.read_bool("flow_schedule_auto_shift"):
        return f"{NO_EFFECT}flow_schedule_auto_shift goes before it"
    if shift <= 0 or shift == 1:
        return f"{NO_EFFECT}it shifts nothing"
    return draft.set("objective.shift", shift, origin=origin)


def set_auto_shift(draft: Draft, keys: Keys, *, value: Any) -> str:
    """The shift by the number of tokens."""
    if not keys.read_bool("flow_schedule_auto_shift"):
        return f"{NO_EFFECT}asks for nothing, here as there"
    if find_law(keys) in ("list", "fast"):
        return f"{NO_EFFECT}SimpleTuner does not shift these noise levels"
    return draft.set("objective.shift", "tokens", origin=keys.find("flow_schedule_auto_shift"))


# ---- guidance


def _is_range(keys: Keys) -> bool:
    return (keys.read_text("flux_guidance_mode") or "constant").lower().replace("_", "-") == "random-range"


def _why_no_guidance(keys: Keys) -> str:
    if is_flux2(keys):
        return "SimpleTuner trains FLUX.2 with guidance 1.0 whatever the file says, as weber does by default"
    if find_flavour(keys) == "fluxbooru":
        return "SimpleTuner trains FluxBooru with 3.5 whatever the file says, as weber does by default"
    return "" if takes_guidance(keys) else "the model has no guidance input"


def set_guidance(draft: Draft, keys: Keys, *, value: Any) -> str:
    """The guidance that the model is told while it is trained."""
    if why := _why_no_guidance(keys):
        return f"{NO_EFFECT}{why}"
    if _is_range(keys):
        return f"{NO_EFFECT}flux_guidance_mode draws it from a range"
    guidance = read_float(value, name="flux_guidance_value")
    if guidance == 1:
        return f"{NO_EFFECT}1.0 is the default here too"
    return draft.set("objective.guidance", guidance, origin=keys.find("flux_guidance_value"))


def set_guidance_mode(draft: Draft, keys: Keys, *, value: Any) -> str:
    """One guidance, or one drawn for each sample."""
    if why := _why_no_guidance(keys):
        return f"{NO_EFFECT}{why}"
    if not _is_range(keys):
        return f"{NO_EFFECT}one guidance for all, as here by default"
    low = keys.read_float("flux_guidance_min") or 0.0
    high = 4.0 if keys["flux_guidance_max"] is None else keys.read_float("flux_guidance_max") or 0.0
    if low == high:
        return draft.set("objective.guidance", low, origin=keys.find("flux_guidance_mode"))
    return draft.set("objective.guidance_range", sorted([low, high]), origin=keys.find("flux_guidance_mode"))


def name_guidance(draft: Draft, keys: Keys, *, value: Any) -> str:
    """An end of the range."""
    acts = _is_range(keys) and not _why_no_guidance(keys)
    return "in objective.guidance_range" if acts else f"{NO_EFFECT}it is for flux_guidance_mode = random-range"


# ---- loss


def set_loss(draft: Draft, keys: Keys, *, value: Any) -> str:
    """The distance between what is answered and what is asked."""
    loss = str(value).strip().lower()
    if loss not in ("l2", "huber", "smooth_l1"):
        return f'{REFUSED}weber has no such loss; objective.loss is "l2", "l1", "huber" or "smooth_l1"'
    return draft.set("objective.loss", loss, origin=keys.find("loss_type"))


def _is_huber(keys: Keys) -> bool:
    return (keys.read_text("loss_type") or "l2").lower() in ("huber", "smooth_l1")


def set_huber_schedule(draft: Draft, keys: Keys, *, value: Any) -> str:
    """How the bend of the loss follows the noise level."""
    schedule = str(value).strip().lower()
    if not _is_huber(keys):
        return f"{NO_EFFECT}it is for the losses huber and smooth_l1"
    if schedule == "constant":
        return f"{NO_EFFECT}constant is the default here"
    if schedule == "exponential":
        return draft.set("objective.huber_schedule", "exponential", origin=keys.find("huber_schedule"))
    return f'{REFUSED}it needs a table of signal and noise; the nearest is objective.huber_schedule = "exponential"'


def set_huber_bend(draft: Draft, keys: Keys, *, value: Any) -> str:
    """Where the loss bends."""
    if not _is_huber(keys):
        return f"{NO_EFFECT}it is for the losses huber and smooth_l1"
    return draft.set("objective.huber_c", read_float(value, name="huber_c"), origin=keys.find("huber_c"))


# ---- tokens that are left out, and the model's own steps


def set_tread(draft: Draft, keys: Keys, *, value: Any) -> str:
    """Blocks in which tokens of the picture are left out."""
    tree, origin = read_structure(value, name="tread_config"), keys.find("tread_config")
    routes = tree.get("routes") if isinstance(tree, Mapping) else None
    if not isinstance(routes, list) or not all(isinstance(one, Mapping) for one in routes):
        raise ConfigError(
            "tread_config holds no routes.",
            got=str(value)[:80],
            expected='{"routes": [{"selection_ratio": 0.5, "start_layer_idx": 2, "end_layer_idx": -2}]}',
            fix="write it so, or remove it",
        )
    tables = [
        {
            "ratio": read_float(one.get("selection_ratio", 0.5), name="selection_ratio"),
            "first": read_int(one.get("start_layer_idx", 2), name="start_layer_idx"),
            "last": read_int(one.get("end_layer_idx", -2), name="end_layer_idx"),
        }
        for one in routes
    ]
    return draft.set("objective.tread", tables, origin=origin)


def set_rollout(draft: Draft, keys: Keys, *, value: Any) -> str:
    """The model's own steps as input."""
    table = _build_rollout(keys)
    if table is None:
        return f"{NO_EFFECT}no rollout is asked for"
    return draft.set("objective.rollout", table, origin=keys.find("scheduled_sampling_max_step_offset"))


def _build_rollout(keys: Keys) -> dict[str, Any] | None:
    offset, ramp = keys.read_int("scheduled_sampling_max_step_offset") or 0, keys.read_int("scheduled_sampling_ramp_steps") or 0
    start = keys.read_float("scheduled_sampling_prob_start") or 0.0
    end = 0.5 if keys["scheduled_sampling_prob_end"] is None else keys.read_float("scheduled_sampling_prob_end") or 0.0
    chance = end if ramp > 0 else keys.read_float("scheduled_sampling_probability") or 0.0
    if offset <= 0 or (chance == 0 and (ramp == 0 or start == 0)):
        return None
    table: dict[str, Any] = {"max_steps": offset, "probability": chance}
    if ramp > 0 and start != end:
        table |= {"start_probability": start, "ramp_steps": ramp}
        if (keys.read_text("scheduled_sampling_ramp_shape") or "linear") == "cosine":
            table["ramp"] = "cosine"
    if first := keys.read_int("scheduled_sampling_start_step") or 0:
        table["start_step"] = first
    strategy = (keys.read_text("scheduled_sampling_strategy") or "uniform").removeprefix("biased_")
    if strategy in ("early", "late") and offset > 1:
        table["strategy"] = strategy
    return table


def name_rollout(draft: Draft, keys: Keys, *, value: Any) -> str:
    """A part of the rollout."""
    return "in [objective.rollout]" if _build_rollout(keys) is not None else f"{NO_EFFECT}no rollout is asked for"
