"""SimpleTuner's options of pictures on the way and of what is left behind: what each becomes here."""

from __future__ import annotations

import re
from typing import Any

from weber.config.importers.answers import Call
from weber.config.importers.draft import NO_EFFECT, REFUSED, Draft, Keys
from weber.config.importers.simpletuner.facts import find_flavour, has_pictures, is_flux2, list_prompts, takes_guidance
from weber.config.importers.trackers import set_project, set_run_name, set_trackers
from weber.config.importers.values import read_float, read_int, read_texts

_STEP = 16
_NO_PICTURES = "no pictures are painted on the way"
_SEED_LIMIT = 2**62


def set_prompts(draft: Draft, keys: Keys, *, value: Any) -> str:
    """All texts together: that of the file and those of the library."""
    prompts = list_prompts(draft, keys)
    if not prompts:
        return f"{NO_EFFECT}{_NO_PICTURES}"
    name = "validation_prompt" if "validation_prompt" in keys else "user_prompt_library"
    draft.set("sampling.prompts", prompts, origin=keys.find(name))
    return f"sampling.prompts, {len(prompts)} of them" if len(prompts) > 1 else f'sampling.prompts = ["{prompts[0]}"]'


def for_pictures(name: str, key: str) -> Call:
    """A number of the pictures, where any are painted."""

    def call(draft: Draft, keys: Keys, value: Any) -> str:
        if not has_pictures(keys):
            return f"{NO_EFFECT}{_NO_PICTURES}"
        return draft.set(key, value, origin=keys.find(name))

    return call


def set_every(draft: Draft, keys: Keys, *, value: Any) -> str:
    """Steps between pictures."""
    steps = keys.read_int("validation_step_interval") or 0
    if not has_pictures(keys):
        return f"{NO_EFFECT}{_NO_PICTURES}"
    if "validation_step_interval" not in keys and "validation_epoch_interval" in keys:
        return f"{NO_EFFECT}validation_epoch_interval says how often"
    if steps <= 0:
        return f"{NO_EFFECT}no steps between pictures are asked for"
    return draft.set("sampling.every", steps, origin=keys.find("validation_step_interval"))


def set_every_epochs(draft: Draft, keys: Keys, *, value: Any) -> str:
    """Epochs between pictures."""
    if not has_pictures(keys):
        return f"{NO_EFFECT}{_NO_PICTURES}"
    if (keys.read_int("validation_step_interval") or 0) > 0 and "validation_step_interval" in keys:
        return f"{NO_EFFECT}validation_step_interval says how often; weber counts one of both"
    return draft.set("sampling.every", _write_epochs(value), origin=keys.find("validation_epoch_interval"))


def _write_epochs(value: Any) -> str:
    return f"{max(1, round(read_float(value, name='a number of epochs')))} epochs"


def _is_klein(keys: Keys) -> bool:
    return is_flux2(keys) and find_flavour(keys).split("-")[0] in ("klein", "") and "dev" not in find_flavour(keys)


def find_cfg(keys: Keys) -> float:
    """The scale of classifier-free guidance; SimpleTuner takes validation_guidance for it with klein."""
    real = keys.read_float("validation_guidance_real") or 1.0
    if _is_klein(keys) and real == 1.0:
        return keys.read_float("validation_guidance") or 1.0
    return real


def set_guidance(draft: Draft, keys: Keys, *, value: Any) -> str:
    """The guidance of pictures."""
    origin = keys.find("validation_guidance")
    if not has_pictures(keys):
        return f"{NO_EFFECT}{_NO_PICTURES}"
    if _is_klein(keys):
        if (keys.read_float("validation_guidance_real") or 1.0) != 1.0:
            return f"{NO_EFFECT}validation_guidance_real goes before it"
        line = draft.set("sampling.cfg", max(1.0, read_float(value, name="validation_guidance")), origin=origin)
        return f"{line}: SimpleTuner takes it for classifier-free guidance with klein"
    if not takes_guidance(keys):
        return f"{NO_EFFECT}the model has no guidance input"
    return draft.set("sampling.guidance", read_float(value, name="validation_guidance"), origin=origin)


def set_cfg(draft: Draft, keys: Keys, *, value: Any) -> str:
    """Classifier-free guidance of pictures."""
    if not has_pictures(keys):
        return f"{NO_EFFECT}{_NO_PICTURES}"
    scale = read_float(value, name="validation_guidance_real")
    if scale <= 1:
        return f"{NO_EFFECT}each step asks the model once"
    return draft.set("sampling.cfg", scale, origin=keys.find("validation_guidance_real"))


def set_negative(draft: Draft, keys: Keys, *, value: Any) -> str:
    """What classifier-free guidance leads away from."""
    if not has_pictures(keys):
        return f"{NO_EFFECT}{_NO_PICTURES}"
    if find_cfg(keys) <= 1:
        return f"{NO_EFFECT}it is for classifier-free guidance, which is off (validation_guidance_real)"
    return draft.set("sampling.negative_prompt", str(value), origin=keys.find("validation_negative_prompt"))


def set_size(draft: Draft, keys: Keys, *, value: Any) -> str:
    """The size of pictures, or several of them."""
    if not has_pictures(keys):
        return f"{NO_EFFECT}{_NO_PICTURES}"
    sizes = list(dict.fromkeys(_read_size(one) for one in str(value).lower().replace(" ", "").split(",") if one))
    origin = keys.find("validation_resolution")
    if len(sizes) > 1:
        return draft.set("sampling.sizes", [f"{width}x{height}" for width, height in sizes], origin=origin)
    width, height = sizes[0]
    return f"{draft.set('sampling.width', width, origin=origin)}, {draft.set('sampling.height', height, origin=origin)}"


def _read_size(text: str) -> tuple[int, int]:
    """`1024x768`, an edge in pixels, or megapixels as SimpleTuner reads them."""
    if found := re.fullmatch(r"(\d+)x(\d+)", text):
        return _round(int(found[1])), _round(int(found[2]))
    number = read_float(text, name="validation_resolution")
    edge = int(number)
    if edge < 128:
        edge = 1024 if edge == 1 else int(edge * 1e3 / 8) * 8
    return _round(edge), _round(edge)


def _round(pixels: int) -> int:
    return max(_STEP, round(pixels / _STEP) * _STEP)


def set_no_cfg(draft: Draft, keys: Keys, *, value: Any) -> str:
    """First steps without classifier-free guidance."""
    number, steps = read_int(value, name="validation_no_cfg_until_timestep"), keys.read_int("validation_num_inference_steps") or 0
    if not has_pictures(keys):
        return f"{NO_EFFECT}{_NO_PICTURES}"
    if find_cfg(keys) <= 1 or number <= 0:
        return f"{NO_EFFECT}it is for classifier-free guidance, which is off, or asks for nothing"
    if number >= steps:
        return f"{REFUSED}none of the {steps} steps would be left for classifier-free guidance; set sampling.cfg = 1 for that"
    return draft.set("sampling.no_cfg_until", number, origin=keys.find("validation_no_cfg_until_timestep"))


def set_num(draft: Draft, keys: Keys, *, value: Any) -> str:
    """Pictures of each prompt."""
    number, seed = read_int(value, name="num_validation_images"), (keys.read_int("validation_seed") or 0) % _SEED_LIMIT
    if not has_pictures(keys) or number <= 1:
        return f"{NO_EFFECT}{_NO_PICTURES}, or one of each prompt, as here"
    return draft.set("sampling.seeds", [seed + one for one in range(number)], origin=keys.find("num_validation_images"))


def set_base(draft: Draft, keys: Keys, *, value: Any) -> str:
    """Whether the base model is painted with, for comparison."""
    if not has_pictures(keys):
        return f"{NO_EFFECT}{_NO_PICTURES}"
    if not keys.read_bool("disable_benchmark") or keys.read_bool("validation_on_startup"):
        return f"{NO_EFFECT}pictures of the base model are painted at the start, here as there"
    return draft.set("sampling.at_start", False, origin=keys.find("disable_benchmark"))


def set_strength(draft: Draft, keys: Keys, *, value: Any) -> str:
    """The strength of a LyCORIS adapter in pictures."""
    strength = read_float(value, name="validation_lycoris_strength")
    is_lycoris = (keys.read_text("lora_type") or "").lower() == "lycoris" and "lora" in (keys.read_text("model_type") or "")
    if not has_pictures(keys) or not is_lycoris or strength == 1:
        return f"{NO_EFFECT}{_NO_PICTURES}, or the adapter paints as it is"
    return draft.set("sampling.strengths", [strength], origin=keys.find("validation_lycoris_strength"))


def set_picture_seed(draft: Draft, keys: Keys, *, value: Any) -> str:
    """The seed of pictures."""
    if not has_pictures(keys):
        return f"{NO_EFFECT}{_NO_PICTURES}"
    if (keys.read_int("num_validation_images") or 1) > 1:
        return "the first of sampling.seeds"
    return draft.set("sampling.seed", read_int(value, name="validation_seed") % _SEED_LIMIT, origin=keys.find("validation_seed"))


def set_weights(draft: Draft, keys: Keys, *, value: Any) -> str:
    """Which weights paint."""
    mode = str(value).strip().lower()
    if not has_pictures(keys) or not keys.read_bool("use_ema"):
        return f"{NO_EFFECT}{_NO_PICTURES}, or there is no running mean"
    if mode == "ema_only":
        return draft.set("sampling.weights", "ema", origin=keys.find("ema_validation"))
    note = "; weber paints one of both: the trained weights" if mode == "comparison" else ""
    return f"{NO_EFFECT}the trained weights paint, as here by default{note}"


# ---- what is left behind


def set_save(draft: Draft, keys: Keys, *, value: Any) -> str:
    """Steps between checkpoints."""
    steps = keys.read_int("checkpoint_step_interval") or 0
    if "checkpoint_step_interval" not in keys and "checkpoint_epoch_interval" in keys:
        return f"{NO_EFFECT}checkpoint_epoch_interval says how often"
    if steps <= 0:
        return f"{NO_EFFECT}no steps between checkpoints are asked for"
    return draft.set("output.save_every", steps, origin=keys.find("checkpoint_step_interval"))


def set_save_epochs(draft: Draft, keys: Keys, *, value: Any) -> str:
    """Epochs between checkpoints."""
    if (keys.read_int("checkpoint_step_interval") or 0) > 0 and "checkpoint_step_interval" in keys:
        return f"{NO_EFFECT}checkpoint_step_interval says how often; weber counts one of both"
    return draft.set("output.save_every", _write_epochs(value), origin=keys.find("checkpoint_epoch_interval"))


def set_keep(draft: Draft, keys: Keys, *, value: Any) -> str:
    """How many checkpoints are kept."""
    number = read_int(value, name="checkpoints_total_limit")
    return draft.set("output.keep_last", number if number > 0 else "all", origin=keys.find("checkpoints_total_limit"))


def set_report(draft: Draft, keys: Keys, *, value: Any) -> str:
    """Where curves are shown."""
    return set_trackers(draft, read_texts(value), origin=keys.find("report_to"))


def set_tracker_project(draft: Draft, keys: Keys, *, value: Any) -> str:
    """Of wandb and trackio."""
    return set_project(draft, value, trackers=read_texts(keys["report_to"] or ""), origin=keys.find("tracker_project_name"))


def set_tracker_run(draft: Draft, keys: Keys, *, value: Any) -> str:
    """Of wandb and trackio."""
    return set_run_name(draft, value, trackers=read_texts(keys["report_to"] or ""), origin=keys.find("tracker_run_name"))


def refuse_resume(draft: Draft, keys: Keys, *, value: Any) -> str:
    """Checkpoints of another trainer hold another optimizer."""
    if str(value).strip().lower() in ("latest", "null", "none"):
        return f"{NO_EFFECT}`weber train RUN --resume` goes on with a run; a checkpoint of SimpleTuner holds no state that weber has"
    return f"{REFUSED}a checkpoint of SimpleTuner holds no state that weber has; its adapter may be the start: adapter.start_from"
