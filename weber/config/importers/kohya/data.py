"""Sets of pictures as kohya's scripts know them: options that are looked up in the subset, its dataset, [general] and the command line."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from weber.config.importers.answers import Call, Table, ignored, refused, translated, used
from weber.config.importers.draft import NO_EFFECT, REFUSED, Draft, Keys
from weber.config.importers.kohya.captions import CAPTIONS, put_metadata_captions
from weber.config.importers.values import read_bool, read_float, read_int, read_texts
from weber.errors import ConfigError

SET_DEFAULTS: Mapping[str, Any] = {"enable_bucket": False, "caption_extension": ".caption"}
"""What the scripts take for a set where nothing is said, and weber takes something else."""

_JITTER = 0.05
_STEP_PIXELS = 64
_NO_LIMIT_ASPECT = 16.0


def is_bucketed(keys: Keys) -> bool:
    """Whether pictures keep a shape near their own."""
    return keys.read_bool("enable_bucket")


def read_size(keys: Keys) -> tuple[int, int] | None:
    """(width, height) of `resolution`: one number, two, or a text of them."""
    value, given = keys["resolution"], keys.find("resolution")
    if value is None:
        return None
    parts = value if isinstance(value, list) else read_texts(str(value).replace("x", ",").strip("[] "))
    numbers = [read_int(one, name=given.spelled) for one in parts]
    if len(numbers) not in (1, 2) or min(numbers) < 1:
        raise ConfigError(
            f"{given.spelled} is no size.",
            got=given.text,
            expected='a number, or width and height: 1024, [832, 1216], "832,1216"',
            fix=f"correct {given.spelled}",
        )
    return numbers[0], numbers[-1]


# ---- where pictures are


def _put_folder(draft: Draft, keys: Keys, value: Any) -> str:
    """`image_dir`: the folder itself, without those in it."""
    number, name = keys.set_number, "image_dir" if "image_dir" in keys else "image_directory"
    origin = keys.find(name)
    line = draft.set(f"data.{number}.path", str(value), origin=origin)
    if not keys["run.is_parent"]:
        line += "; " + draft.set(f"data.{number}.recursive", False, origin="folders in it are not read there")
    _name_apart(draft, keys, str(value))
    return line


def _name_apart(draft: Draft, keys: Keys, folder: str) -> None:
    """Sets of the same folder, at several sizes, have names of their own here."""
    taken = [one.get("name") or Path(str(one.get("path", one.get("metadata", "")))).name for one in draft.tree["data"][:-1]]
    base, size = Path(folder).name, read_size(keys)
    if base not in taken:
        return
    names = [f"{base}@{size[0]}"] if size is not None and size[0] == size[1] else []
    names += [f"{base}-{number}" for number in range(2, len(taken) + 3)]
    draft.set(f"data.{keys.set_number}.name", next(name for name in names if name not in taken), origin="a name of its own")


def _put_metadata(draft: Draft, keys: Keys, value: Any) -> str:
    """`metadata_file`, or `--in_json`: a table of captions."""
    line = draft.set(f"data.{keys.set_number}.metadata", str(value), origin=keys.find("metadata_file"))
    return line + put_metadata_captions(draft, keys, name=str(value))


def _put_masks(draft: Draft, keys: Keys, value: Any) -> str:
    """`conditioning_data_dir`: masks of the loss, with `masked_loss`."""
    if not keys["run.masked_loss"]:
        return REFUSED + "without masked_loss the scripts take it for a ControlNet, and stop; masks are data.N.loss_masks"
    line = draft.set(f"data.{keys.set_number}.loss_masks", str(value), origin=keys.find("conditioning_data_dir"))
    return f"{line}; {_put_mask_mean(draft)}"


def _put_mask_mean(draft: Draft) -> str:
    return draft.set("objective.mask_mean", "picture", origin="losses are not divided by the area of the mask there")


def _put_alpha(draft: Draft, keys: Keys, value: Any) -> str:
    """`alpha_mask`."""
    if not read_bool(value, name="alpha_mask"):
        return NO_EFFECT + "asks for nothing, here as there"
    if "conditioning_data_dir" in keys and keys["run.masked_loss"]:
        return NO_EFFECT + "the masks of conditioning_data_dir count"
    return f"{draft.set(f'data.{keys.set_number}.alpha_mask', True, origin=keys.find('alpha_mask'))}; {_put_mask_mean(draft)}"


# ---- how often


def _put_repeats(draft: Draft, keys: Keys, value: Any) -> str:
    """`num_repeats`."""
    return draft.set(f"data.{keys.set_number}.repeats", read_int(value, name="num_repeats"), origin=keys.find("num_repeats"))


def _put_regularization(draft: Draft, keys: Keys, value: Any) -> str:
    """`is_reg`: class images, as many as there are others."""
    if not read_bool(value, name="is_reg"):
        return NO_EFFECT + "asks for nothing, here as there"
    weight = keys.read_float("prior_loss_weight")
    line = "its pictures are repeated there until they are as many as the others; set data.N.repeats so"
    if weight is None or weight == 1:
        return f"a set as the others: {line}"
    return f"{draft.set(f'data.{keys.set_number}.loss_weight', weight, origin=keys.find('prior_loss_weight'))}; {line}"


def _put_batch(draft: Draft, keys: Keys, value: Any) -> str:
    """`batch_size`, of a dataset there and of the run here."""
    number, chosen = read_int(value, name="batch_size"), draft.get("train.batch_size")
    if chosen is not None and chosen != number:
        return REFUSED + f"all sets have one batch size here: train.batch_size = {chosen}"
    return draft.set("train.batch_size", number, origin=keys.find("batch_size"))


def _put_attributes(draft: Draft, keys: Keys, value: Any) -> str:
    """`custom_attributes`, of which the scripts for FLUX read one."""
    asked = value.get("diff_output_preservation") if isinstance(value, Mapping) else None
    if not asked or not keys["run.is_adapter"]:
        return NO_EFFECT + "flux_train_network.py reads diff_output_preservation, and nothing else"
    return draft.set(f"data.{keys.set_number}.regularization", True, origin=keys.find("custom_attributes"))


# ---- sizes


def _put_buckets(draft: Draft, keys: Keys, value: Any) -> str:
    """`enable_bucket`: without it all pictures are cut to one size."""
    place, origin = f"data.{keys.set_number}", keys.find("enable_bucket")
    nothing_set_aside = "no picture is set aside there"
    lines = []
    if read_bool(value, name="enable_bucket"):
        lines += [draft.set(f"{place}.geometry", "kohya", origin=origin)]
        no_upscale = keys.find("bucket_no_upscale")
        enlarges = "small pictures are enlarged there" if no_upscale.is_default else no_upscale
        lines += [draft.set(f"{place}.upscale", not keys.read_bool("bucket_no_upscale"), origin=enlarges)]
    else:
        if not _has_own_bucket(keys):
            lines += [draft.set(f"{place}.aspect", "square", origin=origin)]
        lines += [draft.set(f"{place}.upscale", True, origin="small pictures are enlarged there")]
    if not draft.weber_defaults:
        lines += [draft.set(f"{place}.minimum_edge", 1, origin=nothing_set_aside)]
        if is_bucketed(keys) or _has_own_bucket(keys):
            lines += [draft.set(f"{place}.max_aspect", _NO_LIMIT_ASPECT, origin=nothing_set_aside)]
    return "; ".join(lines)


def _has_own_bucket(keys: Keys) -> bool:
    """Whether the one size is no square of whole steps."""
    size = read_size(keys)
    return size is not None and (size[0] != size[1] or size[0] % _STEP_PIXELS != 0)


def _put_resolution(draft: Draft, keys: Keys, value: Any) -> str:
    """`resolution`: as many pixels with buckets, else the size itself."""
    size, origin, place = read_size(keys), keys.find("resolution"), f"data.{keys.set_number}"
    assert size is not None
    if not is_bucketed(keys) and _has_own_bucket(keys):
        return draft.set(f"{place}.buckets", [list(size)], origin=origin) + ": without enable_bucket all pictures get this size"
    return draft.set(f"{place}.resolution", float(size[0]) if size[0] == size[1] else f"{size[0]}x{size[1]}", origin=origin)


def put_side(name: str, to: str) -> Call:
    """`min_bucket_reso` and `max_bucket_reso`, in whole steps."""

    def put(draft: Draft, keys: Keys, value: Any) -> str:
        if not is_bucketed(keys):
            return NO_EFFECT + "is read with enable_bucket = true"
        if keys.read_bool("bucket_no_upscale"):
            return NO_EFFECT + "is not read with bucket_no_upscale = true"
        step, side = keys.read_int("bucket_reso_steps") or _STEP_PIXELS, read_int(value, name=name)
        whole = side - side % step if to == "shortest_side" else side + -side % step
        line = draft.set(f"data.{keys.set_number}.{to}", whole, origin=keys.find(name))
        return line if whole == side else f"{line}: in whole steps, as there"

    return put


def _put_step(draft: Draft, keys: Keys, value: Any) -> str:
    """`bucket_reso_steps`."""
    if not is_bucketed(keys):
        return NO_EFFECT + "is read with enable_bucket = true"
    number, origin = read_int(value, name="bucket_reso_steps"), keys.find("bucket_reso_steps")
    return draft.set(f"data.{keys.set_number}.bucket_step", number, origin=origin)


def _put_no_upscale(draft: Draft, keys: Keys, value: Any) -> str:
    """`bucket_no_upscale`."""
    if not is_bucketed(keys):
        return NO_EFFECT + "is read with enable_bucket = true"
    return f"data.{keys.set_number}.upscale = {str(not read_bool(value, name='bucket_no_upscale')).lower()}"


def _put_crop(draft: Draft, keys: Keys, value: Any) -> str:
    """`random_crop`."""
    if not read_bool(value, name="random_crop"):
        return NO_EFFECT + "the middle of pictures is kept, here as there"
    return draft.set(f"data.{keys.set_number}.crop", "random", origin=keys.find("random_crop"))


def _put_mirror(draft: Draft, keys: Keys, value: Any) -> str:
    """`flip_aug`."""
    if not read_bool(value, name="flip_aug"):
        return NO_EFFECT + "asks for nothing, here as there"
    return draft.set(f"data.{keys.set_number}.mirror", True, origin=keys.find("flip_aug"))


def _put_colors(draft: Draft, keys: Keys, value: Any) -> str:
    """`color_aug`."""
    if not read_bool(value, name="color_aug"):
        return NO_EFFECT + "asks for nothing, here as there"
    line = draft.set(f"data.{keys.set_number}.color_jitter", _JITTER, origin=keys.find("color_aug"))
    return f"{line}, the nearest: there a third of the pictures has other hues or another gamma"


def _put_multiplier(draft: Draft, keys: Keys, value: Any) -> str:
    """`network_multiplier`."""
    if read_float(value, name="network_multiplier") == 1:
        return NO_EFFECT + "1 changes nothing"
    return REFUSED + "weber trains every set at full strength"


def _put_held_out(draft: Draft, keys: Keys, value: Any) -> str:
    """`validation_split`: the share of the pictures that is measured, and not learned."""
    share = read_float(value, name="validation_split")
    if share <= 0 or keys.read_bool("is_reg"):
        return NO_EFFECT + ("pictures for regularization are not measured" if share > 0 else "no picture is held out, here as there")
    if share >= 1:
        return REFUSED + "a set of which all is held out has no repeats and no captions that are dropped here: data.N.evaluation = 1"
    return draft.set(f"data.{keys.set_number}.evaluation", share, origin=keys.find("validation_split"))


SET: Table = {
    "image_dir image_directory": translated(_put_folder, "data.N.path, with recursive = false"),
    "metadata_file": translated(_put_metadata, "data.N.metadata"),
    "conditioning_data_dir": translated(_put_masks, "data.N.loss_masks, with masked_loss"),
    "control_directory": used(".conditioning.0"),
    "num_repeats": translated(_put_repeats, "data.N.repeats"),
    "is_reg": translated(_put_regularization, "data.N.loss_weight by prior_loss_weight"),
    "prior_loss_weight": translated(
        lambda draft, keys, value: "data.N.loss_weight" if keys.read_bool("is_reg") else NO_EFFECT + "is of sets with is_reg",
        "data.N.loss_weight of sets with is_reg",
    ),
    "batch_size": translated(_put_batch, "train.batch_size, the same for all sets"),
    "custom_attributes": translated(_put_attributes, "diff_output_preservation: data.N.regularization"),
    "alpha_mask": translated(_put_alpha, "data.N.alpha_mask"),
    "resolution": translated(_put_resolution, "data.N.resolution, or data.N.buckets of one size without enable_bucket"),
    "enable_bucket": translated(_put_buckets, 'data.N.geometry = "kohya"; without it aspect = "square"'),
    "min_bucket_reso": translated(put_side("min_bucket_reso", "shortest_side"), "data.N.shortest_side"),
    "max_bucket_reso": translated(put_side("max_bucket_reso", "longest_side"), "data.N.longest_side"),
    "bucket_reso_steps": translated(_put_step, "data.N.bucket_step"),
    "bucket_no_upscale": translated(_put_no_upscale, "data.N.upscale = false"),
    "random_crop": translated(_put_crop, 'data.N.crop = "random"'),
    "flip_aug": translated(_put_mirror, "data.N.mirror"),
    "color_aug": translated(_put_colors, "data.N.color_jitter"),
    "face_crop_aug_range": refused('faces are not in the names of files here; data.N.crop = "face" finds them'),
    "network_multiplier": translated(_put_multiplier, "cannot be had, but for 1"),
    "resize_interpolation": refused("weber has one way to resize pictures: by area, as the scripts if nothing is said"),
    "validation_split": translated(_put_held_out, "data.N.evaluation"),
    "validation_seed": ignored("which pictures data.N.evaluation holds out is drawn by their names alone"),
    "cache_info cache_directory debug_dataset": ignored("how pictures are found and kept"),
    "multiple_target": ignored("is of another trainer's file"),
    **CAPTIONS,
}
"""Options of a set."""

