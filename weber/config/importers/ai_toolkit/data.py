"""Sets of pictures of ai-toolkit, as sets of weber."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from weber.config.importers.draft import NO_EFFECT, REFUSED, Draft, Keys
from weber.config.importers.values import read_float, read_int, simplify
from weber.errors import ConfigError

EDITS = ("kontext", "flux2", "klein")
_NOT_READ = NO_EFFECT + "captions are not read at all with train.unload_text_encoder"


def _name(keys: Keys, name: str) -> str:
    return f"data.{keys.set_number}.{name}"


def _asks(keys: Keys, name: str) -> bool:
    return keys[name] is not None and keys.read_bool(name)


def set_folder(draft: Draft, keys: Keys, *, value: Any) -> str:
    """`folder_path`, and `dataset_path`, which goes before it."""
    origin = keys.find("dataset_path" if "dataset_path" in keys else "folder_path")
    folder = str(keys["dataset_path"] or keys["folder_path"])
    if folder.lower().endswith(".json"):
        raise ConfigError(
            "weber does not read ai-toolkit's JSON of captions.",
            got=folder,
            expected="a folder of pictures with a caption file beside each",
            fix="write its captions beside the pictures, or make data.0.metadata of it: a list of {image, caption}",
        )
    line = draft.set(_name(keys, "path"), folder, origin=origin)
    if keys["set_name"] is not None:
        draft.set(_name(keys, "name"), keys["set_name"], origin="sets of one folder's name")
    return line


def set_sizes(draft: Draft, keys: Keys, *, value: Any) -> str:
    """`resolution`: one, or a list, in which the set is used once for each."""
    values = value if isinstance(value, list) else [value]
    sizes = list(dict.fromkeys(read_float(one, name="resolution") for one in values))
    lines = [draft.set(_name(keys, "resolution"), sizes if len(sizes) > 1 else sizes[0], origin=keys.find("resolution"))]
    is_square = _asks(keys, "square_crop")
    if is_square:
        lines.append(draft.set(_name(keys, "aspect"), "square", origin=keys.find("square_crop")))
    step = 32 if keys["family"] == "flux" else 16
    lines.append(draft.set(_name(keys, "bucket_step"), step, origin=f"{step}, whatever bucket_tolerance says"))
    _set_windows(draft, keys, is_square=is_square)
    return "; ".join(lines)


def _set_windows(draft: Draft, keys: Keys, *, is_square: bool) -> None:
    """Sizes and windows as ai-toolkit has them, of every picture."""
    draft.set(_name(keys, "geometry"), "ai-toolkit", origin="sizes and windows as ai-toolkit has them")
    enlarged = "small pictures are enlarged there" if is_square else "sides of small pictures are enlarged to whole steps there"
    draft.set(_name(keys, "upscale"), True, origin=enlarged)
    if draft.weber_defaults:
        return
    draft.set(_name(keys, "minimum_edge"), 1, origin=_NOTHING_SET_ASIDE)
    if not is_square:
        draft.set(_name(keys, "max_aspect"), _LONGEST, origin=_NOTHING_SET_ASIDE)


_NOTHING_SET_ASIDE = "no picture is set aside there"
_LONGEST = 16.0


def set_crop(draft: Draft, keys: Keys, *, value: Any) -> str:
    """`random_crop`: drawn once, when the set is opened."""
    if not keys.read_bool("random_crop"):
        return NO_EFFECT + "windows are in the middle, here as there"
    if keys.read_bool("square_crop"):
        return NO_EFFECT + "square_crop takes the middle"
    settings = {"crop": "random", "num_crops": keys.read_int("num_repeats") or 1}
    return "; ".join(draft.set(_name(keys, name), one, origin=keys.find("random_crop")) for name, one in settings.items())


def set_mirror(draft: Draft, keys: Keys, *, value: Any) -> str:
    """`flip_x`: each picture a second time, mirrored."""
    if not keys.read_bool("flip_x"):
        return NO_EFFECT + "asks for nothing"
    num = 2 * (keys.read_int("num_repeats") or 1)
    lines = [draft.set(_name(keys, "mirror"), True, origin=keys.find("flip_x"))]
    return "; ".join([*lines, draft.set(_name(keys, "repeats"), num, origin=keys.find("flip_x"))])


def set_repeats(draft: Draft, keys: Keys, *, value: Any) -> str:
    """`num_repeats`; the mirrored pictures double it."""
    num = max(1, read_int(value, name="num_repeats")) * (2 if _asks(keys, "flip_x") else 1)
    return draft.set(_name(keys, "repeats"), num, origin=keys.find("num_repeats"))


# ---- captions


def set_captions(draft: Draft, keys: Keys, *, value: Any) -> str:
    """`caption_ext`: where captions are, and what a picture without one is given."""
    given, ending = keys.find("caption_ext"), "." + str(value).strip().lstrip(".")
    if keys["is_unread"]:
        draft.set(_name(keys, "captions"), "instance" if _has_trigger(keys) else "none", origin="train.unload_text_encoder")
        if _has_trigger(keys):
            draft.set(_name(keys, "instance_prompt"), str(keys["trigger_word"]), origin=keys.find("trigger_word"))
        return _NOT_READ
    first = "json" if ending == ".json" else "textfile"
    sources = [first, *_list_rest(keys)]
    lines = [draft.set(_name(keys, "captions"), sources if len(sources) > 1 else first, origin=given)]
    if first == "textfile":
        lines.append(draft.set(_name(keys, "caption_per"), "file", origin="a caption there is the whole file"))
        if ending != ".txt":
            lines.append(draft.set(_name(keys, "caption_endings"), [ending], origin=given))
    if sources[1:] == ["instance"]:
        lines.append(draft.set(_name(keys, "instance_prompt"), str(keys["trigger_word"]), origin=keys.find("trigger_word")))
    return "; ".join(lines)


def _list_rest(keys: Keys) -> list[str]:
    """What a picture without a caption has: the default caption, the trigger word alone, or nothing."""
    if keys["default_caption"]:
        return []
    return ["instance"] if _has_trigger(keys) else ["none"]


def _has_trigger(keys: Keys) -> bool:
    return bool(keys["trigger_word"]) and not _asks(keys, "is_reg")


def set_default_caption(draft: Draft, keys: Keys, *, value: Any) -> str:
    """`default_caption`."""
    if keys["is_unread"]:
        return _NOT_READ
    return draft.set(_name(keys, "caption_fallback"), str(value), origin=keys.find("default_caption"))


def set_trigger(draft: Draft, keys: Keys, *, value: Any) -> str:
    """`trigger_word`: in front of captions that lack it, and in the place of `[trigger]`."""
    if keys["is_unread"]:
        return _NOT_READ + "; the trigger word is all that is told"
    if not _has_trigger(keys):
        return NO_EFFECT + "it is not added to regularization pictures"
    _set_steps(draft, keys, name="trigger_word")
    return 'a step of data.0.caption_steps, kind = "trigger": in front where the caption lacks it, and for [trigger]'


def set_dropout(draft: Draft, keys: Keys, *, value: Any) -> str:
    """`caption_dropout_rate`: the trigger word is put back into what was dropped."""
    given, rate = keys.find("caption_dropout_rate"), read_float(value, name="caption_dropout_rate")
    if rate <= 0:
        return NO_EFFECT + "asks for nothing"
    if keys["is_unread"]:
        return _NOT_READ
    is_weighed = "caption_ext" in keys or not draft.weber_defaults  # else captions come from wherever weber has them
    if _has_trigger(keys) and not keys["default_caption"] and rate < 1 and is_weighed:
        weights = [simplify(round(1 - rate, 6)), simplify(rate)]
        line = draft.set(_name(keys, "caption_weights"), [float(one) for one in weights], origin=given)
        return f"{line}: what is left of a dropped caption is the trigger word, as there"
    line = draft.set(_name(keys, "caption_dropout"), rate, origin=given)
    return line if not _has_trigger(keys) else f"{line}; the empty caption here, the trigger word there"


def set_token_dropout(draft: Draft, keys: Keys, *, value: Any) -> str:
    """`token_dropout_rate` and `keep_tokens`."""
    rate = read_float(value, name="token_dropout_rate")
    if rate <= 0:
        return NO_EFFECT + "asks for nothing"
    if keys["is_unread"]:
        return _NOT_READ
    if _asks(keys, "cache_text_embeddings"):
        return NO_EFFECT + "with cache_text_embeddings no tag is ever left out"
    keep = keys.read_int("keep_tokens") or 0
    _set_steps(draft, keys, name="token_dropout_rate")
    return f'a step of data.0.caption_steps: kind = "drop", rate = {rate:g}' + (f", keep = {keep}" if keep else "")


def answer_keep(draft: Draft, keys: Keys, *, value: Any) -> str:
    """`keep_tokens`."""
    if not keys["token_dropout_rate"] or read_float(keys["token_dropout_rate"], name="token_dropout_rate") <= 0:
        return NO_EFFECT + "tags are kept from token_dropout_rate alone, which is 0"
    return f"keep = {value} of the step that drops"


def set_shuffle(draft: Draft, keys: Keys, *, value: Any) -> str:
    """`shuffle_tokens`."""
    if not keys.read_bool("shuffle_tokens"):
        return NO_EFFECT + "asks for nothing"
    if keys["is_unread"]:
        return _NOT_READ
    _set_steps(draft, keys, name="shuffle_tokens")
    return 'a step of data.0.caption_steps, kind = "shuffle"' + (", before and behind the trigger word" if _has_trigger(keys) else "")


def _set_steps(draft: Draft, keys: Keys, *, name: str) -> None:
    """All steps, in the order in which ai-toolkit does them: it shuffles once more behind the trigger word."""
    rate, keep = keys.read_float("token_dropout_rate") or 0.0, keys.read_int("keep_tokens") or 0
    trigger = {"kind": "trigger", "text": str(keys["trigger_word"]).strip(), "separator": " ", "ignore_case": False}
    drop = {"kind": "drop", "rate": min(rate, 1.0), **({"keep": keep} if keep else {})}
    steps: list[dict[str, Any]] = [drop] if rate > 0 and not _asks(keys, "cache_text_embeddings") else []
    shuffle = [{"kind": "shuffle"}] if _asks(keys, "shuffle_tokens") else []
    steps += [*shuffle, trigger, *shuffle] if _has_trigger(keys) else shuffle
    draft.set(_name(keys, "caption_steps"), steps, origin=keys.find(name))


# ---- references, masks, regularization


def set_references(draft: Draft, keys: Keys, *, value: Any) -> str:
    """`control_path`, or `control_path_1` to `_3`."""
    if keys["family"] not in EDITS:
        return NO_EFFECT + "that model takes no reference pictures"
    numbered = [name for name in ("control_path_1", "control_path_2", "control_path_3") if name in keys]
    names = numbered or ["control_path"]
    folders = [one for name in names for one in (keys[name] if isinstance(keys[name], list) else [keys[name]]) if one]
    if not folders:
        return NO_EFFECT + "control_path_1 to _3 go before it"
    origin = keys.find(names[0])
    lines = [draft.set(_name(keys, "conditioning"), [str(one) for one in folders], origin=origin)]
    if keys["family"] != "kontext":
        lines.append(draft.set(_name(keys, "conditioning_type"), "reference_loose", origin="references keep their own shape there"))
        edge = keys["resolution"] if not isinstance(keys["resolution"], list) else None
        if keys["matches_target"] and edge:
            sizes = [read_float(edge, name="resolution")] * len(folders)
            lines.append(draft.set(_name(keys, "reference_sizes"), sizes, origin="model.model_kwargs.match_target_res"))
    return "; ".join(lines)


def set_repainted(draft: Draft, keys: Keys, *, value: Any) -> str:
    """`inpaint_path`."""
    return REFUSED + "for FLUX.1 Fill put black and white masks into a folder, and name it in data.0.masks"


def set_mask(draft: Draft, keys: Keys, *, value: Any) -> str:
    """`mask_path`."""
    return _set_minimum(draft, keys, draft.set(_name(keys, "loss_masks"), str(value), origin=keys.find("mask_path")))


def set_alpha(draft: Draft, keys: Keys, *, value: Any) -> str:
    """`alpha_mask`."""
    if not keys.read_bool("alpha_mask"):
        return NO_EFFECT + "asks for nothing"
    if keys["mask_path"]:
        return NO_EFFECT + "mask_path goes before it"
    return _set_minimum(draft, keys, draft.set(_name(keys, "alpha_mask"), True, origin=keys.find("alpha_mask")))


def _set_minimum(draft: Draft, keys: Keys, line: str) -> str:
    least = keys.read_float("mask_min_value") or 0.0
    if not 0 < least < 1:
        return line
    return line + "; " + draft.set("objective.mask_minimum", least, origin=keys.find("mask_min_value"))


def answer_minimum(draft: Draft, keys: Keys, *, value: Any) -> str:
    """`mask_min_value`; the mask writes it."""
    if not keys["mask_path"] and not _asks(keys, "alpha_mask"):
        return NO_EFFECT + "there are no masks"
    return f"objective.mask_minimum = {value}"


def set_regularization(draft: Draft, keys: Keys, *, value: Any) -> str:
    """`is_reg`: every second step is of these sets, with `train.reg_weight`."""
    if not keys.read_bool("is_reg"):
        return NO_EFFECT + "asks for nothing"
    if keys["num_sets"] == 1:
        return NO_EFFECT + "it is the only set"
    lines = [draft.set("train.balance", "sets", origin=keys.find("is_reg"))]
    share = float(keys["reg_share"] or 1.0)
    if share != 1.0:
        lines.append(draft.set(_name(keys, "share"), share, origin="every second step is one of regularization"))
    weight = (keys.read_float("reg_weight") or 1.0) * (keys.read_float("loss_multiplier") or 1.0)
    if weight != 1.0:
        lines.append(draft.set(_name(keys, "loss_weight"), weight, origin="train.reg_weight"))
    return "; ".join(lines)


def set_prior(draft: Draft, keys: Keys, *, value: Any) -> str:
    """`prior_reg`: what the model says without the adapter is what is asked."""
    if not keys.read_bool("prior_reg"):
        return NO_EFFECT + "asks for nothing"
    if keys["kind"] == "full":
        return REFUSED + "with no network there is no adapter that can be turned off"
    if keys["num_learned"] == 0:
        return REFUSED + "all sets have it, and nothing would be learned; add a set with what is to be learned"
    return draft.set(_name(keys, "regularization"), True, origin=keys.find("prior_reg"))


def set_weight(draft: Draft, keys: Keys, *, value: Any) -> str:
    """`loss_multiplier`."""
    weight = read_float(value, name="loss_multiplier")
    if weight == 1:
        return NO_EFFECT + "asks for nothing"
    if _asks(keys, "is_reg"):
        return "loss_weight, times train.reg_weight"
    if weight <= 0:
        return REFUSED + "weights of the loss are above 0"
    return draft.set(_name(keys, "loss_weight"), weight, origin=keys.find("loss_multiplier"))


def name_sets(folders: list[str]) -> list[str | None]:
    """A name of its own for each set whose folder is called like that of another."""
    names = [Path(one.replace("\\", "/")).name for one in folders]
    return [f"{name}-{names[: place + 1].count(name)}" if names.count(name) > 1 else None for place, name in enumerate(names)]
