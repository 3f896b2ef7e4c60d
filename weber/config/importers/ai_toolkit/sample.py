"""Pictures that ai-toolkit paints on the way, and the files that it writes."""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from typing import Any

from weber.config.importers.ai_toolkit.data import EDITS
from weber.config.importers.draft import NO_EFFECT, REFUSED, Draft, Keys
from weber.config.importers.trackers import set_project, set_run_name, set_trackers
from weber.config.importers.values import read_float, read_int

_NONE = NO_EFFECT + "no pictures are painted"
_FLAG = re.compile(r"\s*--(\w+)\s*((?:(?!--).)*)", re.DOTALL)
_REFERENCES = ("ctrl_img", "ctrl_img_1", "ctrl_img_2", "ctrl_img_3")
_OWN = ("width", "height", "seed", "guidance_scale", "sample_steps", "neg", "network_multiplier")
_FORBIDDEN = re.compile(r'[<>:"/\\|?*\x00-\x1f]')


def list_samples(sample: Mapping[str, Any], *, trigger: str | None) -> list[dict[str, Any]]:
    """Each picture with its prompt, without flags in it, and what those and its own keys say."""
    raw = sample.get("samples")
    items = raw if isinstance(raw, list) else [{"prompt": one} for one in (sample.get("prompts") or [])]
    found = []
    for item in items:
        entry = dict(item) if isinstance(item, Mapping) else {"prompt": item}
        text = str(entry.get("prompt") or "").strip()
        entry |= {name: value.strip() for name, value in _FLAG.findall(text)}
        text = _FLAG.sub("", text).strip() if "--" in text else text
        for place in ("[trigger]", "[name]") if trigger else ():
            text = text.replace(place, str(trigger))
        if text:
            found.append({**entry, "prompt": text})
    return found


def paints(keys: Keys) -> bool:
    """Whether there are pictures on the way."""
    return bool(keys["items"]) and not keys.read_bool("train.disable_sampling")


def set_prompts(draft: Draft, keys: Keys, *, value: Any) -> str:
    """`prompts`, or `samples` with keys of their own."""
    if "sample.samples" in keys and value is keys["sample.prompts"] and value is not keys["sample.samples"]:
        return NO_EFFECT + "sample.samples goes before it"
    if not paints(keys):
        return _NONE
    items: Sequence[Mapping[str, Any]] = keys["items"]
    given = keys.find("sample.samples" if "sample.samples" in keys else "sample.prompts")
    draft.set("sampling.prompts", [str(one["prompt"]) for one in items], origin=given)
    line = f"sampling.prompts, {len(items)} of them"
    references = [[str(one[name]) for name in _REFERENCES if one.get(name)] for one in items]
    if any(references):
        if keys["family"] not in EDITS:
            line += "; that model takes no reference pictures"
        else:
            draft.set("sampling.conditioning", references, origin=given)
            line += "; their ctrl_img as sampling.conditioning"
    own = sorted({name for one in items for name in (*_OWN, *_SHORT) if one.get(name) not in (None, "")})
    return line if not own else f"{line}; {', '.join(own)} of single ones are not had: all have the same size, seed, steps and guidance"


_SHORT = ("w", "h", "d", "l", "s", "n", "m", "cfg", "steps")


def set_plain(setting: str, name: str) -> Any:
    """A number of all pictures."""

    def write(draft: Draft, keys: Keys, value: Any) -> str:
        if not paints(keys):
            return _NONE
        number = read_int(value, name=name)
        if number < 0:
            return NO_EFFECT + f"drawn anew each time there; sampling.{setting} stays as it is"
        return draft.set(f"sampling.{setting}", number, origin=keys.find(name))

    return write


def set_every(draft: Draft, keys: Keys, *, value: Any) -> str:
    """`sample_every`, in optimizer steps."""
    every = read_int(value, name="sample.sample_every")
    if not paints(keys):
        return _NONE
    if every <= 0:
        return REFUSED + "pictures are painted at the start and at the end at least; remove sampling.prompts for none"
    return draft.set("sampling.every", max(1, every // int(keys["step_parts"])), origin=keys.find("sample.sample_every"))


def set_side(setting: str, name: str) -> Any:
    """Width or height, as a multiple of 16."""

    def write(draft: Draft, keys: Keys, value: Any) -> str:
        if not paints(keys):
            return _NONE
        return draft.set(f"sampling.{setting}", max(16, read_int(value, name=name) // 16 * 16), origin=keys.find(name))

    return write


def set_guidance(draft: Draft, keys: Keys, *, value: Any) -> str:
    """`guidance_scale`: of klein it is classifier-free guidance."""
    if not paints(keys):
        return _NONE
    scale = read_float(value, name="sample.guidance_scale")
    if keys["family"] == "klein":
        return draft.set("sampling.cfg", max(1.0, scale), origin=keys.find("sample.guidance_scale"))
    if keys["is_schnell"]:
        return NO_EFFECT + "that model has no guidance input"
    return draft.set("sampling.guidance", scale, origin=keys.find("sample.guidance_scale"))


def set_negative(draft: Draft, keys: Keys, *, value: Any) -> str:
    """`neg`: only klein asks twice."""
    if not paints(keys) or value in (None, False, "", "false"):
        return NO_EFFECT + "asks for nothing"
    scale = keys.read_float("sample.guidance_scale") or 1.0
    if keys["family"] != "klein" or scale <= 1:
        return NO_EFFECT + "the model paints without a negative prompt"
    return draft.set("sampling.negative_prompt", str(value), origin=keys.find("sample.neg"))


def answer_walk(draft: Draft, keys: Keys, *, value: Any) -> str:
    """`walk_seed`."""
    if not paints(keys):
        return _NONE
    if keys.read_bool("sample.walk_seed"):
        return NO_EFFECT + "each further prompt adds 1 to the seed, here as there"
    return "all prompts have the same seed, which then is in sampling.seeds" if _shares_seed(keys) else NO_EFFECT + "there is one seed"


def _shares_seed(keys: Keys) -> bool:
    """Whether several prompts are painted with one seed."""
    seed = keys.read_int("sample.seed")
    return not keys.read_bool("sample.walk_seed") and len(keys["items"]) > 1 and seed is not None and seed >= 0


def set_seed(draft: Draft, keys: Keys, *, value: Any) -> str:
    """`seed`."""
    if paints(keys) and _shares_seed(keys):
        return draft.set("sampling.seeds", [read_int(value, name="sample.seed")], origin=keys.find("sample.seed")) + ", for all prompts"
    return str(set_plain("seed", "sample.seed")(draft, keys, value))


def set_first(draft: Draft, keys: Keys, *, value: Any) -> str:
    """`skip_first_sample`."""
    if not paints(keys):
        return _NONE
    if not keys.read_bool("train.skip_first_sample") or keys.read_bool("train.force_first_sample"):
        return NO_EFFECT + "pictures are painted at the start, here as there"
    return draft.set("sampling.at_start", False, origin=keys.find("train.skip_first_sample"))


def set_strength(draft: Draft, keys: Keys, *, value: Any) -> str:
    """`network_multiplier`, of all pictures."""
    strength = read_float(value, name="sample.network_multiplier")
    if not paints(keys) or strength == 1:
        return NO_EFFECT + "the adapter paints as it is"
    return draft.set("sampling.strengths", [strength], origin=keys.find("sample.network_multiplier"))


# ---- files


def set_place(draft: Draft, keys: Keys, *, value: Any) -> str:
    """`training_folder`, in which there is a folder with the name of the job."""
    folder = f"{str(value).rstrip('/')}/{keys['job_name']}"
    return draft.set("output.folder", folder, origin=keys.find("training_folder"))


def set_name(draft: Draft, keys: Keys, *, value: Any) -> str:
    """`config.name`: of the folder and of the files."""
    name = str(value).strip()
    if _FORBIDDEN.search(name) or name != name.strip(". ") or name.endswith(".safetensors"):
        return "the name of the run folder; as the name of files it has signs that not every system takes"
    return draft.set("output.name", name, origin=keys.find("config.name"))


def set_save_every(draft: Draft, keys: Keys, *, value: Any) -> str:
    """`save_every`, in optimizer steps."""
    every = read_int(value, name="save.save_every")
    if every <= 0:
        return NO_EFFECT + "a checkpoint is written at the end in any case"
    return draft.set("output.save_every", max(1, every // int(keys["step_parts"])), origin=keys.find("save.save_every"))


def set_keep(draft: Draft, keys: Keys, *, value: Any) -> str:
    """`max_step_saves_to_keep`."""
    num = read_int(value, name="save.max_step_saves_to_keep")
    return draft.set("output.keep_last", num if num > 0 else "all", origin=keys.find("save.max_step_saves_to_keep"))


_PRECISIONS = {"float16": "fp16", "fp16": "fp16", "bf16": "bf16", "bfloat16": "bf16", "float32": "fp32", "fp32": "fp32", "float": "fp32"}


def set_precision(draft: Draft, keys: Keys, *, value: Any) -> str:
    """`save.dtype`."""
    name = _PRECISIONS.get(str(value).strip().lower())
    if keys["kind"] == "full":
        return NO_EFFECT + "a whole model is written in the precision of its files"
    if name is None:
        return REFUSED + "files are in fp32, bf16 or fp16; output.precision stays at fp32"
    return draft.set("output.precision", name, origin=keys.find("save.dtype"))


def set_log(draft: Draft, keys: Keys, *, value: Any) -> str:
    """`log_dir`."""
    return set_trackers(draft, ["tensorboard"], origin=keys.find("log_dir")) + ", in the run folder"


def set_wandb(draft: Draft, keys: Keys, *, value: Any) -> str:
    """`logging.use_wandb`."""
    if not keys.read_bool("logging.use_wandb"):
        return NO_EFFECT + "asks for nothing"
    return set_trackers(draft, ["wandb"], origin=keys.find("logging.use_wandb"))


def set_wandb_project(draft: Draft, keys: Keys, *, value: Any) -> str:
    """`logging.project_name`."""
    return set_project(draft, value, trackers=_list_trackers(keys), origin=keys.find("logging.project_name"))


def set_wandb_run(draft: Draft, keys: Keys, *, value: Any) -> str:
    """`logging.run_name`."""
    return set_run_name(draft, value, trackers=_list_trackers(keys), origin=keys.find("logging.run_name"))


def _list_trackers(keys: Keys) -> list[str]:
    return ["wandb"] if keys["logging.use_wandb"] is not None and keys.read_bool("logging.use_wandb") else []
