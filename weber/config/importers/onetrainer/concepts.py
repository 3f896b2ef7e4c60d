"""OneTrainer's concepts: what each key becomes in the [[data]] of its concept."""

from __future__ import annotations

import re
from typing import Any

from weber.config.importers.answers import Call, Table, ignored, refused, stated, used
from weber.config.importers.draft import NO_EFFECT, REFUSED, Draft, Keys
from weber.config.importers.named import find_named
from weber.config.importers.texts import read_text
from weber.config.importers.values import read_bool, read_float, read_int, read_texts
from weber.errors import ConfigError

RESOLUTION = "the run's resolution"
HAS_BUCKETS = "the run's buckets"
IS_CACHED = "the run keeps what it encodes"
"""Among the defaults of a concept: what the run says for all."""

_NOTHING = "asks for nothing, here as there"
_CHANGED = "pictures are encoded once, as they are, and kept in the cache; put changed copies beside them"
_STEP = 64
_MOST_JITTER = 0.5
_LONGEST = 16.0


def _key(keys: Keys, name: str) -> str:
    return f"data.{keys.set_number}.{name}"


def set_sizes(draft: Draft, keys: Keys) -> str:
    """The sizes of training pictures: OneTrainer's own, of one resolution or of several, of which a picture has one; or a single size."""
    own = keys["image.resolution_override"] if keys.read_bool("image.enable_resolution_override") else None
    text = str(keys[RESOLUTION] if own is None else own).lower().replace(" ", "")
    origin = keys.find("image.resolution_override") if own is not None else keys[f"{RESOLUTION}, as it was given"]
    if found := re.fullmatch(r"(\d+)x(\d+)", text):
        size = [max(_STEP, round(int(one) / _STEP) * _STEP) for one in found.groups()]
        return draft.set(_key(keys, "buckets"), [size], origin=origin)
    edges = [read_int(one, name="resolution") for one in re.split(r"[,;]", text) if one]
    if not edges:
        raise ConfigError("resolution holds no number.", got=text, expected="512, or 512,768, or 512x768", fix="correct resolution")
    if keys[HAS_BUCKETS]:
        draft.set(_key(keys, "bucket_step"), _STEP, origin="sides of OneTrainer's sizes are multiples of 64")
    else:
        draft.set(_key(keys, "aspect"), "square", origin="aspect_ratio_bucketing is off")
    draft.set(_key(keys, "geometry"), "onetrainer", origin="sizes and windows as OneTrainer has them")
    if len(set(edges)) == 1:
        return draft.set(_key(keys, "resolution"), float(edges[0]), origin=origin)
    several = list(dict.fromkeys(float(one) for one in edges))
    line = draft.set(_key(keys, "resolution"), several, origin=origin)
    share = (draft.get(_key(keys, "share")) or 1.0) / len(several)
    return f"{line}, {draft.set(_key(keys, 'share'), share, origin=origin)}: a picture has one of them at a time there"


def set_path(draft: Draft, keys: Keys, *, value: Any) -> str:
    """The folder of the pictures."""
    return draft.set(_key(keys, "path"), str(value).strip(), origin=keys.find("path"))


_OF_USES = ("repeats", "share", "loss_weight", "caption_dropout")
"""What says how pictures are learned."""


def is_held_out(keys: Keys) -> bool:
    """Whether the concept is measured and not learned."""
    return (keys.read_text("type") or "").upper() == "VALIDATION" or keys["validation_concept"] is True


def set_type(draft: Draft, keys: Keys, *, value: Any) -> str:
    """Pictures to learn, to stay as they are, or to be measured."""
    if is_held_out(keys):
        return draft.set(_key(keys, "evaluation"), 1.0, origin=keys.find("type"))
    if str(value).strip().upper() == "PRIOR_PREDICTION":
        return draft.set(_key(keys, "regularization"), True, origin=keys.find("type"))
    return f"{NO_EFFECT}pictures to learn"


def set_balance(draft: Draft, keys: Keys, *, value: Any) -> str:
    """How often each picture comes in an epoch."""
    number = read_float(value, name="balancing")
    if (keys.read_text("balancing_strategy") or "REPEATS").upper() == "SAMPLES":
        return f"{REFUSED}a concept is weighed by its pictures here: data.N.share, which is {number:g} divided by their number"
    if number == 1:
        return f"{NO_EFFECT}each picture comes once in an epoch"
    if number <= 0:
        return f"{REFUSED}a set without pictures is left out: remove its [[data]]"
    if number == int(number):
        return draft.set(_key(keys, "repeats"), int(number), origin=keys.find("balancing"))
    share = number * (draft.get(_key(keys, "share")) or 1.0)
    return draft.set(_key(keys, "share"), share, origin=keys.find("balancing"))


def name_strategy(draft: Draft, keys: Keys, *, value: Any) -> str:
    """What balancing counts."""
    return f"{NO_EFFECT}with balancing: how often each picture comes in an epoch"


def set_weight(draft: Draft, keys: Keys, *, value: Any) -> str:
    """How much its pictures count."""
    weight = read_float(value, name="loss_weight")
    if weight == 1:
        return f"{NO_EFFECT}1.0 is the default here too"
    if weight <= 0:
        return f"{REFUSED}a set that does not count is left out: remove its [[data]]"
    return draft.set(_key(keys, "loss_weight"), weight, origin=keys.find("loss_weight"))


def set_crop(draft: Draft, keys: Keys, *, value: Any) -> str:
    """Any window, or that in the middle."""
    if not read_bool(value, name="image.enable_crop_jitter"):
        return f'{NO_EFFECT}data.N.crop = "center" is the default here'
    line = draft.set(_key(keys, "crop"), "random", origin=keys.find("image.enable_crop_jitter"))
    number = max(1, keys.read_int("image_variations") or 1)
    if not keys[IS_CACHED]:
        return line
    count = draft.set(_key(keys, "num_crops"), number, origin=keys.find("image_variations"))
    return f"{line}, {count}: as many windows of a picture are kept as image_variations says"


def name_variations(draft: Draft, keys: Keys, *, value: Any) -> str:
    """Windows, colors and mirrored pictures that are kept."""
    acts = keys[IS_CACHED] and (keys["image.enable_crop_jitter"] is None or keys.read_bool("image.enable_crop_jitter"))
    return f"in {_key(keys, 'num_crops')}" if acts else f"{NO_EFFECT}nothing of the pictures is drawn"


def set_mirror(draft: Draft, keys: Keys, *, value: Any) -> str:
    """Each picture as it is and mirrored."""
    if not read_bool(value, name="image.enable_random_flip"):
        return f"{NO_EFFECT}{_NOTHING}"
    return draft.set(_key(keys, "mirror"), True, origin=keys.find("image.enable_random_flip"))


_COLORS = ("brightness", "contrast", "saturation", "hue")


def set_colors(draft: Draft, keys: Keys, *, value: Any) -> str:
    """Other colors, by one strength for all of them."""
    acting = [one for one in _COLORS if keys.read_bool(f"image.enable_random_{one}")]
    strengths = [keys.read_float(f"image.random_{one}_max_strength") or 0.0 for one in acting]
    strength = min(max(strengths, default=0.0), _MOST_JITTER)
    if strength <= 0:
        return f"{NO_EFFECT}{_NOTHING}"
    line = draft.set(_key(keys, "color_jitter"), strength, origin=keys.find(f"image.enable_random_{acting[0]}"))
    return f"{line}, one strength for brightness, contrast and saturation"


def name_override(draft: Draft, keys: Keys, *, value: Any) -> str:
    """Sizes of its own."""
    if not keys.read_bool("image.enable_resolution_override"):
        return f"{NO_EFFECT}{_NOTHING}"
    return f"in {_key(keys, 'buckets' if draft.get(_key(keys, 'buckets')) else 'resolution')}"


# ---- captions


def find_source(keys: Keys) -> str:
    """Where captions come from, in OneTrainer's word."""
    return (keys.read_text("text.prompt_source") or "sample").lower()


def set_source(draft: Draft, keys: Keys, *, value: Any) -> str:
    """Caption files, a file of prompts for all, or the names of the pictures."""
    source, origin = find_source(keys), keys.find("text.prompt_source")
    if source == "concept":
        name = keys.read_text("text.prompt_path")
        if name is None:
            raise ConfigError(
                "a concept takes its captions from a file that it does not name.",
                got=origin.text,
                expected="text.prompt_path",
                fix="set the path of the prompts in that concept",
            )
        lines = [line.strip() for line in read_text(find_named(draft, name, key="text.prompt_path")).splitlines() if line.strip()]
        draft.set(_key(keys, "captions"), "instance" if lines else "none", origin=origin)
        if lines:
            draft.set(_key(keys, "instance_prompt"), lines[0] if len(lines) == 1 else lines, origin=keys.find("text.prompt_path"))
        return f"{_key(keys, 'instance_prompt')}, the {len(lines)} lines of that file"
    if source == "filename":
        return draft.set(_key(keys, "captions"), "filename", origin=origin)
    return draft.set(_key(keys, "captions"), ["textfile", "none"], origin=origin) + ": a picture without a caption file has an empty one"


def name_prompt_path(draft: Draft, keys: Keys, *, value: Any) -> str:
    """The file of prompts."""
    return f"in {_key(keys, 'instance_prompt')}" if find_source(keys) == "concept" else f"{NO_EFFECT}captions come from elsewhere"


def build_steps(keys: Keys) -> list[dict[str, Any]]:
    """Tags left out and in another order, in OneTrainer's order."""
    steps: list[dict[str, Any]] = []
    common: dict[str, Any] = {}
    keep = 1 if keys["text.keep_tags_count"] is None else keys.read_int("text.keep_tags_count") or 0
    if keep > 0:
        common["keep"] = keep
    between = str(keys["text.tag_delimiter"] or ",")
    if between.strip() != ",":
        common["separator"] = between
    if _drops(keys):
        special = keys["text.tag_dropout_special_tags"]
        is_kept = (keys.read_text("text.tag_dropout_special_tags_mode") or "NONE").upper() == "WHITELIST" and special
        kept = {"keep_tags": read_texts(special, separator=re.escape(between))} if is_kept else {}
        steps.append({"kind": "drop", "rate": min(1.0, keys.read_float("text.tag_dropout_probability") or 0.0)} | common | kept)
    if keys.read_bool("text.enable_tag_shuffling"):
        steps.append({"kind": "shuffle"} | common)
    return steps


def _drops(keys: Keys) -> bool:
    is_on = keys.read_bool("text.tag_dropout_enable") and (keys.read_float("text.tag_dropout_probability") or 0) > 0
    return is_on and not _why_no_drop(keys)


def _why_no_drop(keys: Keys) -> str:
    mode = (keys.read_text("text.tag_dropout_mode") or "FULL").upper()
    special = (keys.read_text("text.tag_dropout_special_tags_mode") or "NONE").upper()
    if mode == "FULL":
        return "all tags are left out at once there: data.N.caption_dropout leaves out whole captions"
    if mode != "RANDOM":
        return "each tag is left out with the same probability here: kind = \"drop\""
    if special == "BLACKLIST":
        return "tags that alone may be left out are not told apart here: kind = \"filter\" takes them out for good"
    if special == "WHITELIST" and str(keys["text.tag_dropout_special_tags"]).lower().endswith((".txt", ".csv")):
        return "tags that are never left out are written as keep_tags of the step"
    return ""


def set_steps(draft: Draft, keys: Keys, *, value: Any) -> str:
    """What is done to tags."""
    steps = build_steps(keys)
    name = "text.enable_tag_shuffling" if keys.read_bool("text.enable_tag_shuffling") else "text.tag_dropout_enable"
    if not steps:
        asks = keys.read_bool("text.tag_dropout_enable") and (keys.read_float("text.tag_dropout_probability") or 0) > 0
        return f"{REFUSED}{_why_no_drop(keys)}" if asks else f"{NO_EFFECT}tags stay as they are"
    draft.set(_key(keys, "caption_steps"), steps, origin=keys.find(name))
    if keys[IS_CACHED]:
        draft.set(_key(keys, "caption_variants"), max(1, keys.read_int("text_variations") or 1), origin=keys.find("text_variations"))
    return f"{_key(keys, 'caption_steps')}: {', '.join(step['kind'] for step in steps)}"


def name_steps(draft: Draft, keys: Keys, *, value: Any) -> str:
    """A part of the steps."""
    return f"in {_key(keys, 'caption_steps')}" if build_steps(keys) else f"{NO_EFFECT}tags stay as they are"


def name_texts(draft: Draft, keys: Keys, *, value: Any) -> str:
    """How many texts of a picture are kept."""
    if build_steps(keys) and keys[IS_CACHED]:
        return f"in {_key(keys, 'caption_variants')}"
    return f"{NO_EFFECT}each line of a caption file is a caption, of which one is drawn at each use"


def _refuse_if(why: str) -> Call:
    def call(draft: Draft, keys: Keys, value: Any) -> str:
        return f"{REFUSED}{why}" if value not in (None, False, "", 0) else f"{NO_EFFECT}{_NOTHING}"

    return call


CONCEPT_TABLE: Table = {
    "name": used(".name"),
    "validation_concept": stated(set_type, "`evaluation = 1`"),
    "path": stated(set_path, "`path`"),
    "enabled": ignored("the concept takes part"),
    "type": stated(set_type, "`regularization` for PRIOR_PREDICTION, `evaluation = 1` for VALIDATION"),
    "include_subdirectories": used(".recursive"),
    "balancing": stated(set_balance, "`repeats` for whole numbers, else `share`"),
    "balancing_strategy": stated(name_strategy, "REPEATS is `repeats`; SAMPLES cannot be had"),
    "loss_weight": stated(set_weight, "`loss_weight`"),
    "image_variations": stated(name_variations, "`num_crops`"),
    "text_variations": stated(name_texts, "`caption_variants`"),
    "image.enable_crop_jitter": stated(set_crop, '`crop = "random"`'),
    "image.enable_random_flip": stated(set_mirror, "`mirror`"),
    "image.enable_random_brightness image.enable_random_contrast image.enable_random_saturation image.enable_random_hue": stated(
        set_colors, "`color_jitter`, one strength for all"
    ),
    "image.random_*_max_strength": ignored("with enable_random_...: data.N.color_jitter"),
    "image.random_rotate_max_angle": ignored("it is for enable_random_rotate"),
    "image.enable_fixed_* image.enable_random_rotate": stated(_refuse_if(_CHANGED), "changed copies beside the pictures"),
    "image.enable_random_circular_mask_shrink image.enable_random_mask_rotate_crop": stated(
        _refuse_if("masks are taken as they are"), "masks are taken as they are"
    ),
    "image.enable_resolution_override image.resolution_override": stated(name_override, "`buckets` or `resolution`"),
    "text.prompt_source": stated(set_source, "`captions`: sample is textfile, concept the lines of a file, filename"),
    "text.prompt_path": stated(name_prompt_path, "`instance_prompt`, the lines of that file"),
    "text.enable_tag_shuffling text.tag_dropout_enable": stated(set_steps, "`[[data.caption_steps]]`: drop, shuffle"),
    "text.keep_tags_count text.tag_delimiter text.tag_dropout_*": stated(name_steps, "`[[data.caption_steps]]`: keep, separator, rate"),
    "text.caps_randomize_enable": stated(_refuse_if("weber changes no case of letters"), "no case of letters is changed"),
    "text.caps_randomize_*": ignored("it is for caps_randomize_enable"),
    "seed concept_stats concept_stats.* __version image.__version text.__version uuid": ignored("it is of OneTrainer's own pages"),
    "image text": ignored("an empty table"),
}
"""Of a concept that takes part."""

PRIOR_TABLE: Table = {
    "type": refused("the model is kept as it is beside adapters alone; this training changes the model itself", off=()),
    "*": ignored("of a concept that cannot be had"),
}
"""Of a concept that keeps the model as it is, where the model itself is trained."""
DISABLED_TABLE: Table = {"*": ignored("the concept is turned off")}

CONCEPT_DEFAULTS: dict[str, Any] = {
    "include_subdirectories": False,
    "image.enable_crop_jitter": True,
    "image_variations": 1,
    "text_variations": 1,
    "text.prompt_source": "sample",
}
"""What OneTrainer takes for keys that are left out of a concept, where that differs from weber."""


def finish_concept(draft: Draft, keys: Keys) -> None:
    """What OneTrainer does with every picture of a concept."""
    number = keys.set_number
    for name in _OF_USES if is_held_out(keys) else ():
        draft.remove(f"data.{number}.{name}")
    draft.set(f"data.{number}.upscale", True, origin="OneTrainer enlarges small pictures")
    draft.set(f"data.{number}.minimum_edge", 1, origin="OneTrainer sets no small pictures aside")
    if draft.get(f"data.{number}.aspect") != "square":
        draft.set(f"data.{number}.max_aspect", _LONGEST, origin="OneTrainer sets no long pictures aside")
