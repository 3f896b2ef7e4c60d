"""Keys of a set of SimpleTuner's multidatabackend.json: what each becomes in its [[data]]."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from weber.config.importers.answers import Call
from weber.config.importers.draft import NO_EFFECT, REFUSED, Draft, Keys
from weber.config.importers.simpletuner.captions import build_key, find_captions, read_kind, read_texts_or_one
from weber.config.importers.values import read_bool, read_float, read_int, read_texts
from weber.errors import ConfigError

_MEBI = 2**20
"""Pixels of what weber calls a megapixel."""
_MEGA = 1e6
"""Those of SimpleTuner's."""
_LONGEST = 16.0

_UNITS: Mapping[str, str] = {"pixel_area": "area", "area": "megapixels", "pixel": "shorter_edge"}
_WINDOWS = {"center": "center", "centre": "center", "corner": "corner", "random": "random", "face": "face"}
_SHAPES = {"square": "square", "preserve": "bucket", "closest": "closest", "random": "random"}


EVALUATED = "eval"
"""The type of sets that are measured and not learned."""
_OF_USES = ("repeats", "share", "start_after", "stop_after", "caption_dropout", "reference_dropout", "reference_order", "loss_weight")


def hold_out(draft: Draft, keys: Keys) -> None:
    """A set that is measured: nothing that says how pictures are learned has an effect."""
    for name in _OF_USES:
        draft.remove(build_key(keys, name))
    draft.set(build_key(keys, "evaluation"), 1.0, origin=keys.find("dataset_type"))


# ---- for all sets at once


def set_dropout(draft: Draft, keys: Keys, *, value: Any) -> str:
    """The empty caption, in every set."""
    chance = read_float(value, name="caption_dropout_probability")
    if chance == 0:
        return f"{NO_EFFECT}captions are never left out, as here by default"
    sets = [number for number, one in enumerate(draft.tree.get("data") or []) if one.get("evaluation") != 1]
    for number in sets:
        draft.set(f"data.{number}.caption_dropout", chance, origin=keys.find("caption_dropout_probability"))
    return f"caption_dropout = {chance:g} in each of {len(sets)} sets" if len(sets) > 1 else f"data.{sets[0]}.caption_dropout = {chance:g}"


def set_balance(draft: Draft, keys: Keys, *, value: Any) -> str:
    """What has the same weight: each picture, or each set."""
    if str(value).strip().lower() != "uniform" or sum(one.get("evaluation") != 1 for one in draft.tree.get("data") or []) < 2:
        return f"{NO_EFFECT}sets are drawn by their number of pictures, as here"
    return draft.set("train.balance", "sets", origin=keys.find("data_backend_sampling"))


# ---- where pictures are


def set_folder(draft: Draft, keys: Keys, *, value: Any) -> str:
    """The folder of a set; a bucket's is made of its parts."""
    if read_kind(keys) not in ("local", "memory"):
        return f"{NO_EFFECT}a set of type {read_kind(keys)} has its pictures elsewhere"
    name = next(name for name in ("instance_data_dir", "instance_data_root") if name in keys)
    return draft.set(build_key(keys, "path"), str(value).strip(), origin=keys.find(name))


def set_bucket(draft: Draft, keys: Keys, *, value: Any) -> str:
    """A bucket of S3 with its folder."""
    if read_kind(keys) != "aws":
        return f"{NO_EFFECT}it is for sets of type aws"
    folder = (keys.read_text("aws_data_prefix") or keys.read_text("instance_data_dir") or "").strip("/")
    address = f"s3://{str(value).strip().strip('/')}/{folder}".rstrip("/")
    return draft.set(build_key(keys, "path"), address, origin=keys.find("aws_bucket_name"))


def name_bucket(draft: Draft, keys: Keys, *, value: Any) -> str:
    """The folder in the bucket."""
    return f"in {build_key(keys, 'path')}" if read_kind(keys) == "aws" else f"{NO_EFFECT}it is for sets of type aws"


def set_hub(draft: Draft, keys: Keys, *, value: Any) -> str:
    """A dataset of the hub."""
    if read_kind(keys) != "huggingface":
        return f"{NO_EFFECT}it is for sets of type huggingface"
    return draft.set(build_key(keys, "hub"), str(value).strip(), origin=_find(keys, "dataset_name"))


def _find(keys: Keys, name: str) -> Any:
    """A key of a hub dataset, which may stand in the block `huggingface` too."""
    return keys.find(name if name in keys else f"huggingface.{name}")


def set_split(draft: Draft, keys: Keys, *, value: Any) -> str:
    """The split, behind the configuration where there is one."""
    if read_kind(keys) != "huggingface":
        return f"{NO_EFFECT}it is for sets of type huggingface"
    split = keys.read_text("split") or keys.read_text("huggingface.split") or "train"
    config = keys.read_text("dataset_config") or keys.read_text("huggingface.dataset_config")
    whole = f"{config}/{split}" if config else split
    if whole == "train":
        return f"{NO_EFFECT}train is the default here"
    return draft.set(build_key(keys, "hub_split"), whole, origin=_find(keys, "dataset_config" if config else "split"))


def for_hub(name: str, setting: str) -> Call:
    """A setting of a hub dataset."""

    def call(draft: Draft, keys: Keys, value: Any) -> str:
        if read_kind(keys) != "huggingface":
            return f"{NO_EFFECT}it is for sets of type huggingface"
        return draft.set(build_key(keys, setting), read_texts_or_one(value), origin=_find(keys, name))

    return call


def set_hub_caption(draft: Draft, keys: Keys, *, value: Any) -> str:
    """The column of captions, with the one that stands in for it."""
    if find_captions(keys) != "metadata":
        return f"{NO_EFFECT}captions come from {find_captions(keys)}"
    fallback = keys["huggingface.fallback_caption_column"]
    return _set_caption_column(draft, keys, "huggingface.caption_column", value, fallback)


def set_table(draft: Draft, keys: Keys, *, value: Any) -> str:
    """A table with a row for each picture."""
    name = "csv_file" if "csv_file" in keys else "parquet.path"
    if name == "parquet.path" and find_captions(keys) != "metadata" and (keys.read_text("metadata_backend") or "") != "parquet":
        return f"{NO_EFFECT}it is for metadata_backend or caption_strategy parquet"
    return draft.set(build_key(keys, "metadata"), str(value).strip(), origin=keys.find(name))


def set_image_column(draft: Draft, keys: Keys, *, value: Any) -> str:
    """The column with the name, or the address, of the picture."""
    name = "csv_url_column" if "csv_url_column" in keys else "parquet.filename_column"
    if not has_table(keys):
        return f"{NO_EFFECT}the set has no table"
    return draft.set(build_key(keys, "image_column"), str(value).strip(), origin=keys.find(name))


def set_caption_column(draft: Draft, keys: Keys, *, value: Any) -> str:
    """The column with the caption."""
    name = "csv_caption_column" if "csv_caption_column" in keys else "parquet.caption_column"
    if not has_table(keys) or find_captions(keys) != "metadata":
        return f"{NO_EFFECT}captions come from {find_captions(keys)}"
    return _set_caption_column(draft, keys, name, value, keys["parquet.fallback_caption_column"])


def has_table(keys: Keys) -> bool:
    """Whether a table says what belongs to each picture."""
    return "csv_file" in keys or ("parquet.path" in keys and (find_captions(keys) == "metadata" or keys["metadata_backend"] == "parquet"))


def _set_caption_column(draft: Draft, keys: Keys, name: str, value: Any, fallback: Any) -> str:
    columns = read_texts_or_one(value)
    if fallback is not None and isinstance(columns, str):
        columns = list(dict.fromkeys([columns, str(fallback)]))
    return draft.set(build_key(keys, "caption_column"), read_texts_or_one(columns), origin=keys.find(name))


def name_fallback(draft: Draft, keys: Keys, *, value: Any) -> str:
    """The column that stands in for an empty caption."""
    column = build_key(keys, "caption_column")
    return f"in {column}" if draft.get(column) else f"{NO_EFFECT}no column has captions"


# ---- sizes and windows


def find_unit(keys: Keys) -> str:
    """The unit of sizes: `area`, `megapixels` or `shorter_edge`."""
    return _look_up(keys, "resolution_type", words=_UNITS, usual="pixel_area")


def _look_up(keys: Keys, name: str, *, words: Mapping[str, str], usual: str) -> str:
    """What a word of a set means. Raises ConfigError for one that SimpleTuner does not have."""
    word = (keys.read_text(name) or usual).lower()
    if word not in words:
        raise ConfigError(
            f"the set {keys.read_text('id')} has a {name} that SimpleTuner does not have.",
            got=keys.find(name).text,
            expected=f"one of {', '.join(words)}",
            fix=f"write {name} = {usual}",
        )
    return words[word]


def set_resolution(draft: Draft, keys: Keys, *, value: Any) -> str:
    """The size of training pictures."""
    return draft.set(build_key(keys, "resolution"), read_float(value, name="resolution"), origin=keys.find("resolution"))


def set_unit(draft: Draft, keys: Keys, *, value: Any) -> str:
    """Its unit."""
    unit = find_unit(keys)
    if unit == "area":
        return f"{NO_EFFECT}the edge of a square with as many pixels, as here by default"
    return draft.set(build_key(keys, "resolution_type"), unit, origin=keys.find("resolution_type"))


def is_cropped(keys: Keys) -> bool:
    """Whether `crop` is true."""
    return keys.read_bool("crop")


def find_shape(keys: Keys) -> str:
    """The shape of training pictures."""
    shape = _look_up(keys, "crop_aspect", words=_SHAPES, usual="square")
    return shape if is_cropped(keys) else "bucket"


def set_crop(draft: Draft, keys: Keys, *, value: Any) -> str:
    """SimpleTuner cuts in any case: with crop = false to a shape near the picture's own."""
    origin, shape = keys.find("crop"), find_shape(keys)
    if shape in ("closest", "random") and "crop_aspect_buckets" not in keys:
        raise ConfigError(
            f"the set {keys.read_text('id')} has no shapes to choose from.",
            got=keys.find("crop_aspect").text,
            expected="crop_aspect_buckets, as SimpleTuner needs it too",
            fix="add crop_aspect_buckets = [1.0, 0.75, 1.5] to that set, or write crop_aspect = preserve",
        )
    lines = [draft.set(build_key(keys, "aspect"), shape, origin=origin)]
    if shape == "bucket":
        draft.set(build_key(keys, "max_aspect"), _LONGEST, origin="SimpleTuner sets no long pictures aside")
    return lines[0] if is_cropped(keys) else f"{lines[0]}: it is cut there too, to a shape near its own"


def set_shape(draft: Draft, keys: Keys, *, value: Any) -> str:
    """The shape that is cut out."""
    if not is_cropped(keys):
        return f"{NO_EFFECT}with crop = false the picture keeps about its own shape"
    return f'{build_key(keys, "aspect")} = "{find_shape(keys)}"'


def set_aspects(draft: Draft, keys: Keys, *, value: Any) -> str:
    """Shapes to choose from, with their weights."""
    if find_shape(keys) not in ("closest", "random"):
        return f"{NO_EFFECT}it is for crop_aspect closest or random"
    listed = value if isinstance(value, list) else read_texts(value)
    weights, shapes = list[float](), list[float]()
    for one in listed:
        shape = one.get("aspect", one.get("aspect_ratio", one.get("ratio"))) if isinstance(one, Mapping) else one
        number = read_float(shape, name="crop_aspect_buckets")
        if number not in shapes:
            shapes.append(number)
            weights.append(read_float(one.get("weight", 1), name="weight") if isinstance(one, Mapping) else 1.0)
    line = draft.set(build_key(keys, "aspects"), shapes, origin=keys.find("crop_aspect_buckets"))
    if find_shape(keys) == "random" and len(set(weights)) > 1:
        line += ", " + draft.set(build_key(keys, "aspect_weights"), weights, origin=keys.find("crop_aspect_buckets"))
    return line


def set_style(draft: Draft, keys: Keys, *, value: Any) -> str:
    """Which window is kept. A random one is drawn once there, unless sets are encoded anew each epoch."""
    name, origin = str(value).strip().lower(), keys.find("crop_style")
    if name not in _WINDOWS:
        raise ConfigError(
            f"the set {keys.read_text('id')} has a crop_style that SimpleTuner does not have.",
            got=origin.text,
            expected="random, center, corner or face",
            fix="write crop_style = center",
        )
    line = draft.set(build_key(keys, "crop"), _WINDOWS[name], origin=origin)
    if name != "random" or _is_fresh(keys):
        return line
    number = draft.set(build_key(keys, "num_crops"), 1, origin="SimpleTuner draws the window once")
    return f"{line}, {number}: drawn once, there as here"


def _is_fresh(keys: Keys) -> bool:
    anew = keys.read_bool("vae_cache_clear_each_epoch") or keys.read_bool("vae_cache_disable")
    return anew or find_shape(keys) == "random"


def set_smallest(draft: Draft, keys: Keys, *, value: Any) -> str:
    """Smaller pictures are set aside."""
    size, origin = read_float(value, name="minimum_image_size"), keys.find("minimum_image_size")
    if size <= 0:
        return f"{NO_EFFECT}no picture is too small"
    match find_unit(keys):
        case "shorter_edge":
            return draft.set(build_key(keys, "minimum_edge"), int(size), origin=origin)
        case "megapixels":
            return draft.set(build_key(keys, "minimum_megapixels"), size * _MEGA / _MEBI, origin=origin)
        case _:
            return draft.set(build_key(keys, "minimum_megapixels"), size * size / _MEBI, origin=origin)


def set_downsample(draft: Draft, keys: Keys, *, value: Any) -> str:
    """The size that pictures are resized to before the window is cut out, whatever their own."""
    size = read_float(value, name="target_downsample_size")
    if not is_cropped(keys) or not (keys.read_float("maximum_image_size") or 0):
        return f"{NO_EFFECT}SimpleTuner reads it with crop = true and maximum_image_size alone"
    if size <= (keys.read_float("resolution") or 0):
        return f"{NO_EFFECT}pictures are resized to the size of training in any case"
    return draft.set(build_key(keys, "downsample_to"), size, origin=keys.find("target_downsample_size"))


def name_largest(draft: Draft, keys: Keys, *, value: Any) -> str:
    """The size above which SimpleTuner says that it resizes; it resizes all."""
    if draft.get(build_key(keys, "downsample_to")) or _has_downsample(keys):
        return f"in {build_key(keys, 'downsample_to')}: SimpleTuner resizes every picture to it, whatever its size"
    return f"{NO_EFFECT}pictures are resized to the size of training in any case"


def _has_downsample(keys: Keys) -> bool:
    return is_cropped(keys) and (keys.read_float("target_downsample_size") or 0) > (keys.read_float("resolution") or 0)


def set_range(draft: Draft, keys: Keys, *, value: Any) -> str:
    """Pictures of other shapes are set aside, except where all become squares."""
    low, high = keys.read_float("minimum_aspect_ratio"), keys.read_float("maximum_aspect_ratio")
    if find_shape(keys) == "square":
        return f"{NO_EFFECT}SimpleTuner compares it with the shape that is cut out, which is a square"
    name = "minimum_aspect_ratio" if "minimum_aspect_ratio" in keys else "maximum_aspect_ratio"
    between = [low or 1 / _LONGEST, high or _LONGEST]
    return draft.set(build_key(keys, "aspect_range"), between, origin=keys.find(name))


# ---- how often


def set_repeats(draft: Draft, keys: Keys, *, value: Any) -> str:
    """Further passes there, all of them here."""
    repeats = read_int(value, name="repeats")
    if repeats <= 0:
        return f"{NO_EFFECT}each picture comes once in an epoch, there as here"
    return draft.set(build_key(keys, "repeats"), repeats + 1, origin=keys.find("repeats")) + f": {repeats} further passes there"


def set_share(draft: Draft, keys: Keys, *, value: Any) -> str:
    """How often a set is drawn beside the others."""
    share = read_float(value, name="probability")
    if share == 1:
        return f"{NO_EFFECT}it is drawn by its number of pictures"
    line = draft.set(build_key(keys, "share"), share, origin=keys.find("probability"))
    return f"{line}; SimpleTuner draws it so until it is used up, and then goes on with the other sets"


def set_start(draft: Draft, keys: Keys, *, value: Any) -> str:
    """Where a set begins to take part."""
    epoch, step = keys.read_int("start_epoch") or 1, keys.read_int("start_step") or 0
    if epoch > 1:
        return draft.set(build_key(keys, "start_after"), f"{epoch - 1} epochs", origin=keys.find("start_epoch"))
    if step > 1:
        return draft.set(build_key(keys, "start_after"), step - 1, origin=keys.find("start_step"))
    return f"{NO_EFFECT}it takes part from the first step"


def set_stop(draft: Draft, keys: Keys, *, value: Any) -> str:
    """Where it takes part for the last time."""
    epoch, step = keys.read_int("end_epoch") or 0, keys.read_int("end_step") or 0
    if epoch > 0:
        return draft.set(build_key(keys, "stop_after"), f"{epoch} epochs", origin=keys.find("end_epoch"))
    if step > 0:
        return draft.set(build_key(keys, "stop_after"), step, origin=keys.find("end_step"))
    return f"{NO_EFFECT}it takes part to the end"


def refuse_batch(draft: Draft, keys: Keys, *, value: Any) -> str:
    """All sets have one batch size."""
    common = keys.read_int("the run's batch size")
    if common is not None and read_int(value, name="train_batch_size") == common:
        return f"{NO_EFFECT}it is that of the run"
    return f"{REFUSED}all sets have the batch size of the run, train.batch_size"


def set_regularization(draft: Draft, keys: Keys, *, value: Any) -> str:
    """The model stays as it is on these pictures."""
    name = "is_regularisation_data" if "is_regularisation_data" in keys else "is_regularization_data"
    if not read_bool(value, name=name):
        return f"{NO_EFFECT}asks for nothing, here as there"
    if keys["the model itself learns"]:
        return f"{NO_EFFECT}SimpleTuner keeps the model as it is beside adapters only"
    return draft.set(build_key(keys, "regularization"), True, origin=keys.find(name))
