"""OneTrainer's samples: pictures on the way, of one size and guidance here; and how often they and copies are made."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from weber.config.importers.answers import Table, ignored, refused, stated
from weber.config.importers.apply import apply
from weber.config.importers.draft import NO_EFFECT, REFUSED, Draft, Keys
from weber.config.importers.onetrainer.read import find_type, flatten_table, is_klein
from weber.config.importers.values import read_bool, read_float, read_int
from weber.errors import ConfigError

PROMPTS = "the run's prompts"
"""Among the defaults of a sample, and of the run: the texts of all samples that take part."""
IS_FIRST = "it is the first"
IS_KLEIN = "the model has no guidance"
_STEP = 16
_OF_FILL = {"base_image_path": "sampling.conditioning", "mask_image_path": "sampling.masks"}
"""What a model that repaints needs of each sample."""
_SEED_LIMIT = 2**62


def list_enabled(samples: Sequence[Mapping[str, Any]]) -> list[Mapping[str, Any]]:
    """Samples that are painted."""
    return [one for one in samples if one.get("enabled", True) and str(one.get("prompt") or "").strip()]


def check_samples(tree: Any, *, where: str) -> list[Mapping[str, Any]]:
    """The samples of a file. Raises ConfigError."""
    if not isinstance(tree, list) or not all(isinstance(one, Mapping) for one in tree):
        raise ConfigError(
            f"{where} is no list of samples.",
            got="a table" if isinstance(tree, Mapping) else "something else",
            expected='[{"prompt": "a cat", "width": 1024, "height": 1024}, ...]',
            fix="name the file that OneTrainer reads as sample_definition_file_name",
        )
    return tree


def translate_samples(draft: Draft, samples: Sequence[Mapping[str, Any]], *, config: Keys, where: str) -> list[str]:
    """All samples: one picture each, and what the first one says for all. Returns their texts."""
    enabled = list_enabled(samples)
    repaints = find_type(config) == "FLUX_FILL_DEV_1"
    can_paint = is_painting(config) and not (repaints and any(not one.get(name) for one in enabled for name in _OF_FILL))
    prompts = [str(one["prompt"]).strip() for one in enabled] if can_paint else []
    for number, one in enumerate(samples):
        given = flatten_table(one, f"{where}, sample {number + 1}")
        is_on = bool(prompts) and any(one is other for other in enabled)
        context = {PROMPTS: prompts, IS_FIRST: is_on and one is enabled[0], IS_KLEIN: is_klein(config)}
        table = SAMPLE_TABLE if is_on else OFF_TABLE if can_paint or not is_painting(config) else BARE_TABLE
        apply(draft, Keys(given, defaults=context), table=table, is_strict=False)
    if not prompts:
        return []
    draft.set("sampling.prompts", prompts, origin=f"the samples of {where}")
    for name, key in _OF_FILL.items() if repaints else ():
        draft.set(key, [str(one[name]) for one in enabled], origin=f"{name} of the samples of {where}")
    return prompts


def is_painting(config: Keys) -> bool:
    """Whether the run paints pictures at all."""
    return (config.read_text("sample_after_unit") or "MINUTE").upper() != "NEVER"


def _for_first(key: str, draft: Draft, keys: Keys, name: str, value: Any) -> str:
    if not keys[IS_FIRST]:
        same = draft.get(key) == value
        return f"in {key}, that of the first sample" if same else f"{REFUSED}all pictures have that of the first sample, {key}"
    return draft.set(key, value, origin=keys.find(name))


def _set_prompt(draft: Draft, keys: Keys, value: Any) -> str:
    return "one of sampling.prompts"


def _set_width(draft: Draft, keys: Keys, value: Any) -> str:
    return _for_first("sampling.width", draft, keys, "width", _round(value, "width"))


def _set_height(draft: Draft, keys: Keys, value: Any) -> str:
    return _for_first("sampling.height", draft, keys, "height", _round(value, "height"))


def _round(value: Any, name: str) -> int:
    return max(_STEP, round(read_int(value, name=name) / _STEP) * _STEP)


def _set_steps(draft: Draft, keys: Keys, value: Any) -> str:
    return _for_first("sampling.steps", draft, keys, "diffusion_steps", read_int(value, name="diffusion_steps"))


def _set_scale(draft: Draft, keys: Keys, value: Any) -> str:
    scale = read_float(value, name="cfg_scale")
    if keys[IS_KLEIN]:
        return _for_first("sampling.cfg", draft, keys, "cfg_scale", max(1.0, scale))
    return _for_first("sampling.guidance", draft, keys, "cfg_scale", scale)


def _set_seed(draft: Draft, keys: Keys, value: Any) -> str:
    if keys.read_bool("random_seed"):
        return f"{NO_EFFECT}random_seed takes another at each start; here pictures keep their noise"
    if not keys[IS_FIRST]:
        return f"{NO_EFFECT}the seed of the first sample counts, and each further picture adds 1"
    return draft.set("sampling.seed", abs(read_int(value, name="seed")) % _SEED_LIMIT, origin=keys.find("seed"))


def _set_negative(draft: Draft, keys: Keys, value: Any) -> str:
    acts = keys[IS_KLEIN] and (keys.read_float("cfg_scale") or 1.0) > 1
    if not acts:
        return f"{NO_EFFECT}it is for classifier-free guidance, which this model does without"
    return _for_first("sampling.negative_prompt", draft, keys, "negative_prompt", str(value))


SAMPLE_TABLE: Table = {
    "prompt": stated(_set_prompt, "`sampling.prompts`"),
    "enabled": ignored("the sample is painted"),
    "width": stated(_set_width, "`sampling.width`, of the first sample"),
    "height": stated(_set_height, "`sampling.height`, of the first sample"),
    "diffusion_steps": stated(_set_steps, "`sampling.steps`, of the first sample"),
    "cfg_scale": stated(_set_scale, "`sampling.guidance`; of klein `sampling.cfg`"),
    "seed": stated(_set_seed, "`sampling.seed`, of the first sample"),
    "random_seed": ignored("pictures keep their noise, so that they can be compared"),
    "negative_prompt": stated(_set_negative, "`sampling.negative_prompt` of klein"),
    "noise_scheduler": ignored("pictures are painted with Euler's steps along the model's own noise levels"),
    "frames length": ignored("it is for video and sound"),
    "sample_inpainting base_image_path mask_image_path": ignored("of a model that repaints: sampling.conditioning and sampling.masks"),
    "text_encoder_* transformer_attention_mask force_last_timestep __version": ignored("how captions are read is the model's own"),
}
"""Of a sample that is painted."""
OFF_TABLE: Table = {"*": ignored("the sample is turned off, or no samples are painted")}
BARE_TABLE: Table = {
    "prompt": refused("a model that repaints paints over a picture: give each sample a base_image_path and a mask_image_path", off=()),
    "*": ignored("of a sample that cannot be painted"),
}


# ---- how often

_LONG = ("MINUTE", "SECOND", "HOUR")


def set_sample_after(draft: Draft, keys: Keys, *, value: Any) -> str:
    """Epochs or steps between pictures."""
    unit = (keys.read_text("sample_after_unit") or "MINUTE").upper()
    if not keys[PROMPTS]:
        return f"{NO_EFFECT}no pictures are painted on the way"
    return _set_interval(draft, keys, "sampling.every", "sample_after", unit, value)


def set_skip(draft: Draft, keys: Keys, *, value: Any) -> str:
    """How long there are no pictures at first."""
    if not keys[PROMPTS]:
        return f"{NO_EFFECT}no pictures are painted on the way"
    if read_int(value, name="sample_skip_first") <= 0:
        return f"{NO_EFFECT}pictures are painted at the start, here as there"
    return draft.set("sampling.at_start", False, origin=keys.find("sample_skip_first")) + "; then every sampling.every"


def _set_interval(draft: Draft, keys: Keys, key: str, name: str, unit: str, value: Any) -> str:
    number = read_int(value, name=name)
    if unit in _LONG:
        return f"{REFUSED}time is counted in steps or epochs here: {key} = 250, or \"1 epochs\""
    if unit == "ALWAYS":
        return draft.set(key, 1, origin=keys.find(name))
    if unit not in ("EPOCH", "STEP") or number <= 0:
        return f"{NO_EFFECT}none are asked for"
    return draft.set(key, f"{number} epochs" if unit == "EPOCH" else number, origin=keys.find(name))


def set_save_every(draft: Draft, keys: Keys, *, value: Any) -> str:
    """Epochs or steps between saved adapters: a checkpoint here holds both the adapter and what a resume needs."""
    unit = (keys.read_text("save_every_unit") or "NEVER").upper()
    return _set_interval(draft, keys, "output.save_every", "save_every", unit, value)


def set_backup_after(draft: Draft, keys: Keys, *, value: Any) -> str:
    """The same for backups, where nothing is saved beside them."""
    if (keys.read_text("save_every_unit") or "NEVER").upper() in ("EPOCH", "STEP") and (keys.read_int("save_every") or 0) > 0:
        return f"{NO_EFFECT}a checkpoint at every save_every holds all that a resume needs"
    unit = (keys.read_text("backup_after_unit") or "MINUTE").upper()
    return _set_interval(draft, keys, "output.save_every", "backup_after", unit, value)


def set_keep(draft: Draft, keys: Keys, *, value: Any) -> str:
    """How many backups are kept."""
    if not keys.read_bool("rolling_backup"):
        return draft.set("output.keep_last", "all", origin=keys.find("rolling_backup"))
    number = 3 if keys["rolling_backup_count"] is None else keys.read_int("rolling_backup_count") or 1
    return draft.set("output.keep_last", max(1, number), origin=keys.find("rolling_backup"))


def name_keep(draft: Draft, keys: Keys, *, value: Any) -> str:
    """The number of backups."""
    return "in output.keep_last" if keys.read_bool("rolling_backup") else f"{NO_EFFECT}it is for rolling_backup"


def set_tensorboard(draft: Draft, keys: Keys, *, value: Any) -> str:
    """TensorBoard's files."""
    if not read_bool(value, name="tensorboard"):
        return f"{NO_EFFECT}asks for nothing, here as there"
    return draft.set("output.trackers", ["tensorboard"], origin=keys.find("tensorboard"))
