"""What ai-toolkit asks of the network, as settings of weber."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from weber.config.importers.draft import NO_EFFECT, REFUSED, Draft, Keys
from weber.config.importers.values import read_float, read_texts

WEIGHTED = [
    0.447, 0.582, 0.716, 0.729, 0.716, 0.715, 0.731, 0.762, 0.805, 0.86, 0.925,
    1.0, 1.083, 1.172, 1.264, 1.355, 1.441, 1.507, 1.507, 1.375, 0.906,
]  # fmt: skip
"""The loss weights of `timestep_type: weighted`, at t = 0, 0.05, ... 1 (toolkit/timestep_weighing/default_weighing_scheme.py)."""

BELL = [
    0.0, 0.243, 0.48, 0.707, 0.918, 1.108, 1.271, 1.403, 1.5, 1.56, 1.58, 1.56, 1.5, 1.403, 1.271, 1.108, 0.918, 0.707, 0.48,
    0.243, 0.0,
]  # fmt: skip
"""The same of `linear_timesteps`: exp(-2 (t - 1/2)^2) - exp(-1/2), with the mean 1."""

HALF_BELL = [1.58] * 11 + BELL[11:]
"""The same of `linear_timesteps2`."""

LISTS: Mapping[str, list[float]] = {
    "one_step": [1.0],
    "two_step": [1.0, 0.501],
    "four_step": [1.0, 0.75, 0.5, 0.25],
    "eight_step": [1.0, 0.875, 0.75, 0.625, 0.5, 0.375, 0.25, 0.125],
}


# ---- the adapter


def set_network(draft: Draft, keys: Keys, *, value: Any) -> str:
    """`network.type`."""
    given, kind = keys.find("network.type"), str(value).strip().lower()
    if kind in ("lora", "locon"):
        return draft.set("adapter.kind", "lora", origin=given)
    if kind == "dora":
        return draft.set("adapter.dora", True, origin=given)
    if kind != "lokr":
        return REFUSED + 'set adapter.kind = "lora", or "lycoris" with [adapter.lycoris]'
    full, factor = keys["network.lokr_full_rank"], keys.read_int("network.lokr_factor")
    is_whole = full is None or keys.read_bool("network.lokr_full_rank")
    lines = [draft.set("adapter.kind", "lycoris", origin=given), draft.set("adapter.lycoris.algo", "lokr", origin=given)]
    lines.append(draft.set("adapter.lycoris.factor", -1 if factor is None else factor, origin=keys.find("network.lokr_factor")))
    if is_whole:
        lines.append(draft.set("adapter.lycoris.full_matrix", True, origin=keys.find("network.lokr_full_rank")))
    else:
        rank = find_rank(keys)
        lines += [draft.set(f"adapter.lycoris.{name}", rank, origin=keys.find("network.linear")) for name in ("linear_dim", "linear_alpha")]
    return "; ".join(lines)


def find_rank(keys: Keys) -> int:
    """`network.rank` goes before `network.linear`."""
    rank = keys.read_int("network.rank")
    return rank if rank is not None else keys.read_int("network.linear") or 4


def set_rank(draft: Draft, keys: Keys, *, value: Any) -> str:
    """`network.linear`, or its old name `rank`."""
    if keys["kind"] == "lokr":
        full = keys["network.lokr_full_rank"]
        is_whole = full is None or keys.read_bool("network.lokr_full_rank")
        return NO_EFFECT + "both factors are whole" if is_whole else "adapter.lycoris.linear_dim"
    return draft.set("adapter.rank", find_rank(keys), origin=keys.find("network.rank" if "network.rank" in keys else "network.linear"))


def answer_alpha(draft: Draft, keys: Keys, *, value: Any) -> str:
    """`network.linear_alpha`, which is not read for these models."""
    return NO_EFFECT + "for FLUX alpha is always the rank there, so that the scale is 1, as here with adapter.alpha left out"


def answer_lokr(draft: Draft, keys: Keys, *, value: Any) -> str:
    """`network.lokr_full_rank`, `lokr_factor` and `old_lokr_format`; `set_network` writes them."""
    return "under [adapter.lycoris]" if keys["kind"] == "lokr" else NO_EFFECT + 'network.type is not "lokr"'


def set_dropout(draft: Draft, keys: Keys, *, value: Any) -> str:
    """`network.dropout`."""
    if read_float(value, name="network.dropout") == 0:
        return NO_EFFECT + "asks for nothing"
    if keys["kind"] == "lokr":
        return NO_EFFECT + "a LoKr has no such dropout there"
    return draft.set("adapter.dropout", value, origin=keys.find("network.dropout"))


def set_only(draft: Draft, keys: Keys, *, value: Any) -> str:
    """`network_kwargs.only_if_contains`: parts of names."""
    return _set_parts(draft, keys, value, key="adapter.targets", name="network.network_kwargs.only_if_contains")


def set_ignored(draft: Draft, keys: Keys, *, value: Any) -> str:
    """`network_kwargs.ignore_if_contains`."""
    return _set_parts(draft, keys, value, key="adapter.exclude", name="network.network_kwargs.ignore_if_contains")


def set_trained(draft: Draft, keys: Keys, *, value: Any) -> str:
    """`model.only_if_contains`: which weights of a whole model are trained."""
    if keys["kind"] != "full":
        return NO_EFFECT + "it is for training whole models"
    return _set_parts(draft, keys, value, key="adapter.targets", name="model.only_if_contains")


def _set_parts(draft: Draft, keys: Keys, value: Any, *, key: str, name: str) -> str:
    parts = [part.replace("$$", ".") for part in read_texts(value)]
    if not parts:
        return NO_EFFECT + "asks for nothing"
    if keys["family"] not in ("flux", "kontext"):
        return REFUSED + f"names of FLUX.2 are others there (double_blocks, single_blocks); set {key} with those of `weber variants`"
    return draft.set(key, [_build_pattern(part) for part in parts], origin=keys.find(name))


def _build_pattern(part: str) -> str:
    """A part of a name as a pattern: adapters are in the blocks only."""
    if part.startswith("transformer."):
        return part.removeprefix("transformer.").rstrip(".") + (".*" if part.endswith(".") else "*")
    return f"*{part}*" if "transformer_blocks" in part else f"*transformer_blocks.*{part}*"


# ---- noise levels and the loss


def set_timesteps(draft: Draft, keys: Keys, *, value: Any) -> str:
    """`timestep_type`, with `content_or_style` and `linear_timesteps`."""
    given, kind = keys.find("train.timestep_type"), str(value).strip().lower()
    style = str(keys["train.content_or_style"] or "balanced").lower()
    if kind in LISTS:
        lines = [draft.set("objective.timesteps", "list", origin=given), draft.set("objective.timestep_list", LISTS[kind], origin=given)]
        return "; ".join(lines)
    if keys.read_bool("train.linear_timesteps") or keys.read_bool("train.linear_timesteps2"):
        is_half = keys.read_bool("train.linear_timesteps2")
        return _set_cubic(draft, HALF_BELL if is_half else BELL, origin="train.linear_timesteps2" if is_half else "train.linear_timesteps")
    if style in ("content", "style"):
        if kind != "linear":
            return REFUSED + f'content_or_style with {kind} is no law of weber\'s; set objective.timesteps = "beta", as with linear'
        shape = [1.0, 0.3333] if style == "content" else [0.3333, 1.0]
        lines = [draft.set("objective.timesteps", "beta", origin=keys.find("train.content_or_style"))]
        return "; ".join([*lines, draft.set("objective.beta_shape", shape, origin=keys.find("train.content_or_style"))])
    if kind == "weighted":
        return _set_cubic(draft, WEIGHTED, origin="train.timestep_type = weighted")
    if kind in ("shift", "flux_shift"):
        return _set_shift(draft, keys)
    if kind in ("sigmoid", "linear"):
        return draft.set("objective.timesteps", "sigmoid" if kind == "sigmoid" else "uniform", origin=given)
    return REFUSED + "weber has no such law; set objective.timesteps"


def _set_shift(draft: Draft, keys: Keys) -> str:
    given = keys.find("train.timestep_type")
    line = draft.set("objective.timesteps", "uniform", origin=given)
    return f'{line}; {draft.set("objective.shift", "tokens", origin=given)}'


def _set_cubic(draft: Draft, weights: list[float], *, origin: str) -> str:
    draft.set("objective.timesteps", "cubic", origin=origin)
    draft.set("objective.cubic_weights", list(weights), origin=origin)
    return (
        'objective.timesteps = "cubic": noise levels are drawn as often as their loss is weighed there, which is the same on average, with'
        " less noise in it"
    )


def answer_linear(draft: Draft, keys: Keys, *, value: Any) -> str:
    """`linear_timesteps` and `linear_timesteps2`; `set_timesteps` writes them."""
    if not (keys.read_bool("train.linear_timesteps") or keys.read_bool("train.linear_timesteps2")):
        return NO_EFFECT + "asks for nothing"
    return 'objective.timesteps = "cubic" with the weights of its bell'


def answer_style(draft: Draft, keys: Keys, *, value: Any) -> str:
    """`content_or_style`; `set_timesteps` writes it."""
    style = str(value).lower()
    if style == "balanced":
        return NO_EFFECT + "asks for nothing"
    if style not in ("content", "style"):
        return REFUSED + "it is balanced, content or style"
    return f'objective.timesteps = "beta", more {"noise" if style == "content" else "detail"}'


def set_loss(draft: Draft, keys: Keys, *, value: Any) -> str:
    """`loss_type`."""
    given, kind = keys.find("train.loss_type"), str(value).strip().lower()
    if kind in ("mse", "l2"):
        return draft.set("objective.loss", "l2", origin=given)
    if kind in ("mae", "l1"):
        return draft.set("objective.loss", "l1", origin=given)
    if kind == "pseudo_huber":
        lines = [draft.set("objective.loss", "smooth_l1", origin=given), draft.set("objective.huber_c", 0.01, origin=given)]
        return "; ".join(lines) + ": twice its loss, with the same minimum"
    return REFUSED + 'weber has no such loss; objective.loss stays at "l2"'


def set_guidance(draft: Draft, keys: Keys, *, value: Any) -> str:
    """`cfg_scale`, told to models that have a guidance input."""
    if keys["family"] == "klein" or keys["is_schnell"]:
        return NO_EFFECT + "that model has no guidance input"
    return draft.set("objective.guidance", value, origin=keys.find("train.cfg_scale"))


def answer_bypass(draft: Draft, keys: Keys, *, value: Any) -> str:
    """`bypass_guidance_embedding`."""
    if not keys.read_bool("train.bypass_guidance_embedding") or keys["family"] not in ("flux", "kontext") or keys["is_schnell"]:
        return NO_EFFECT + "asks for nothing of that model"
    return REFUSED + "weber leaves no input of the model out; it is told guidance 1 (objective.guidance)"
