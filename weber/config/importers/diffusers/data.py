"""Pictures and captions of diffusers' scripts, as sets of weber."""

from __future__ import annotations

import re
import shlex
from pathlib import Path
from typing import Any

from weber.config.importers.draft import NO_EFFECT, Draft, Keys
from weber.config.importers.values import read_int, simplify
from weber.errors import ConfigError

_HUB_ID = re.compile(r"[\w-][\w.-]*(/[\w-][\w.-]*)?", re.ASCII)
_TABLES = ("metadata.jsonl", "metadata.csv", "metadata.parquet")

RATIOS: tuple[tuple[int, int], ...] = ((1, 1), (4, 5), (5, 4), (2, 3), (3, 2), (3, 4), (4, 3), (9, 16), (16, 9), (1, 2), (2, 1))
"""Width and height of the shapes that `--use_aspect_ratio_buckets` makes."""

KONTEXT_SIZES: tuple[tuple[int, int], ...] = (
    (672, 1568), (688, 1504), (720, 1456), (752, 1392), (800, 1328), (832, 1248), (880, 1184), (944, 1104), (1024, 1024),
    (1104, 944), (1184, 880), (1248, 832), (1328, 800), (1392, 752), (1456, 720), (1504, 688), (1568, 672),
)  # fmt: skip
"""The same in the script for Kontext."""

_STEP_PIXELS = 16
_FEW_PIXELS = 64
NO_DATASET = NO_EFFECT + "columns are read with --dataset_name only"


def is_local(keys: Keys) -> bool:
    """Whether the dataset is a folder on that machine, and none of the hub."""
    name = str(keys["dataset_name"]).strip()
    return _HUB_ID.fullmatch(name) is None or (Path(str(keys["beside"])) / name).is_dir()


def set_folder(draft: Draft, keys: Keys, *, value: Any) -> str:
    """`--instance_data_dir`."""
    if "dataset_name" in keys:
        raise ConfigError(
            "The command names two places for its pictures.",
            got=f"--instance_data_dir {value} and --dataset_name {keys['dataset_name']}",
            expected="one of them; the script itself refuses both",
            fix="remove one of them",
        )
    return draft.set("data.0.path", value, origin=keys.find("instance_data_dir"))


def set_dataset(draft: Draft, keys: Keys, *, value: Any) -> str:
    """`--dataset_name`: a dataset of the hub, or a folder with a table."""
    given, name = keys.find("dataset_name"), str(value).strip()
    if not is_local(keys):
        return draft.set("data.0.hub", name, origin=given)
    line = draft.set("data.0.path", name, origin=given)
    if "caption_column" in keys or "cond_image_column" in keys:
        folder = Path(str(keys["beside"])) / Path(name.replace("\\", "/")).expanduser()
        table = next((one for one in _TABLES if (folder / one).is_file()), _TABLES[0])
        line += "; " + draft.set("data.0.metadata", f"{name.rstrip('/')}/{table}", origin=given)
    return line


def set_configuration(draft: Draft, keys: Keys, *, value: Any) -> str:
    """`--dataset_config_name`: the split is always `train`."""
    if "dataset_name" not in keys or is_local(keys):
        return NO_EFFECT + "only a dataset of the hub has configurations"
    return draft.set("data.0.hub_split", f"{value}/train", origin=keys.find("dataset_config_name"))


def set_image_column(draft: Draft, keys: Keys, *, value: Any) -> str:
    """`--image_column`."""
    if "dataset_name" not in keys:
        return NO_DATASET
    if is_local(keys):
        return NO_EFFECT + "weber finds the column with the names of the pictures by itself"
    return draft.set("data.0.image_column", value, origin=keys.find("image_column"))


def set_caption_column(draft: Draft, keys: Keys, *, value: Any) -> str:
    """`--caption_column`."""
    if "dataset_name" not in keys:
        return NO_DATASET + "; every picture has --instance_prompt"
    return draft.set("data.0.caption_column", value, origin=keys.find("caption_column"))


def set_reference_column(draft: Draft, keys: Keys, *, value: Any) -> str:
    """`--cond_image_column`, cut like the picture itself."""
    if "dataset_name" not in keys:
        return NO_DATASET
    return draft.set("data.0.conditioning_columns", [str(value)], origin=keys.find("cond_image_column"))


def set_prompt(draft: Draft, keys: Keys, *, value: Any) -> str:
    """`--instance_prompt`: of all pictures, or of those whose caption is empty."""
    given = keys.find("instance_prompt")
    if "caption_column" in keys and "dataset_name" in keys:
        return draft.set("data.0.caption_fallback", value, origin=given)
    lines = [draft.set("data.0.captions", "instance", origin=given), draft.set("data.0.instance_prompt", value, origin=given)]
    return "; ".join(lines)


def set_sizes(draft: Draft, keys: Keys, *, value: Any) -> str:
    """`--resolution`, with the shapes that the other flags ask for."""
    if "aspect_ratio_buckets" in keys:
        return NO_EFFECT + "--aspect_ratio_buckets says all sizes"
    given, settings = keys.find("resolution"), list_shape(draft, keys)
    return "; ".join(draft.set(f"data.0.{name}", one, origin=given) for name, one in settings.items())


def list_shape(draft: Draft, keys: Keys) -> dict[str, Any]:
    """Shapes of the pictures of a set, but for the place of their windows. None is too small or too long there."""
    if "aspect_ratio_buckets" in keys:
        limits = {} if draft.weber_defaults else {"minimum_edge": 1, "max_aspect": _LONGEST}
        return {"buckets": read_buckets(str(keys["aspect_ratio_buckets"])), "upscale": True, **limits}
    return {**_list_fixed_shape(keys), **({} if draft.weber_defaults else {"minimum_edge": 1})}


def _list_fixed_shape(keys: Keys) -> dict[str, Any]:
    edge = keys.read_int("resolution") or 512
    if keys.read_bool("use_aspect_ratio_buckets"):
        sizes = KONTEXT_SIZES if keys["family"] == "kontext" else RATIOS
        aspects = [simplify(round(width / height, 4)) for width, height in sizes]
        return {"resolution": edge, "aspect": "closest", "aspects": [float(one) for one in aspects], "bucket_step": _STEP_PIXELS}
    step = {} if edge % _FEW_PIXELS == 0 else {"bucket_step": _STEP_PIXELS}
    return {"resolution": edge, "aspect": "square", "upscale": True, **step}


def list_window(keys: Keys) -> dict[str, Any]:
    """The place of the windows: drawn once for each repeat, when the script starts."""
    if keys.read_bool("center_crop"):
        return {"crop": "center"}
    return {"crop": "random", "num_crops": keys.read_int("repeats") or 1}


def set_buckets(draft: Draft, keys: Keys, *, value: Any) -> str:
    """`--aspect_ratio_buckets="height,width;..."`."""
    given = keys.find("aspect_ratio_buckets")
    lines = [draft.set(f"data.0.{name}", one, origin=given) for name, one in list_shape(draft, keys).items()]
    return "; ".join(lines)


_LONGEST = 16.0


def read_buckets(text: str) -> list[list[int]]:
    """Width and height of each bucket. Raises ConfigError."""
    sizes: list[list[int]] = []
    for pair in (one for one in text.strip().strip("\"'").split(";") if one.strip()):
        found = re.fullmatch(r"\s*(\d+)\s*,\s*(\d+)\s*", pair)
        if found is None:
            raise ConfigError(
                "--aspect_ratio_buckets holds something that is no size.",
                got=pair.strip(),
                expected='pairs of height and width, such as "1024,1024;832,1248"',
                fix="correct --aspect_ratio_buckets",
            )
        size = [int(found[2]), int(found[1])]
        sizes += [size] if size not in sizes else []
    return sizes


def answer_buckets(draft: Draft, keys: Keys, *, value: Any) -> str:
    """`--use_aspect_ratio_buckets`, which acts through the sizes."""
    if not keys.read_bool("use_aspect_ratio_buckets"):
        return NO_EFFECT + "asks for nothing"
    if "aspect_ratio_buckets" in keys:
        return NO_EFFECT + "the sizes are those of --aspect_ratio_buckets"
    return 'data.0.aspect = "closest", with the same shapes; small pictures get smaller sizes of them'


def set_window(draft: Draft, keys: Keys, *, value: Any) -> str:
    """`--center_crop`, or the random crop that is made without it."""
    given = keys.find("center_crop")
    return "; ".join(draft.set(f"data.0.{name}", one, origin=given) for name, one in list_window(keys).items())


def set_mirror(draft: Draft, keys: Keys, *, value: Any) -> str:
    """`--random_flip`."""
    if not keys.read_bool("random_flip"):
        return NO_EFFECT + "asks for nothing"
    return draft.set("data.0.mirror", True, origin=keys.find("random_flip"))


# ---- class images


_WITHOUT = NO_EFFECT + "read only with --with_prior_preservation"


def set_prior(draft: Draft, keys: Keys, *, value: Any) -> str:
    """`--with_prior_preservation`: class images are a set beside the first, in each step as many as of that."""
    if not keys.read_bool("with_prior_preservation"):
        return NO_EFFECT + "asks for nothing"
    missing = [name for name in ("class_data_dir", "class_prompt") if name not in keys]
    if missing:
        raise ConfigError(
            f"--with_prior_preservation needs --{missing[0]}.",
            got="--with_prior_preservation alone",
            expected="--class_data_dir and --class_prompt beside it; the script itself refuses it without",
            fix=f"write --{missing[0]}, or remove --with_prior_preservation",
        )
    given = keys.find("with_prior_preservation")
    prompt = {"captions": "instance", "instance_prompt": str(keys["class_prompt"])}
    settings = {"path": str(keys["class_data_dir"]), "name": "class", **list_shape(draft, keys), **list_window(keys), **prompt}
    for name, one in settings.items():
        draft.set(f"data.1.{name}", one, origin=given)
    weight, num = keys.read_float("prior_loss_weight") or 1.0, keys.read_int("num_class_images") or 100
    draft.set("data.1.loss_weight", weight, origin=keys.find("prior_loss_weight"))
    draft.set("data.1.limit", num, origin=keys.find("num_class_images"))
    balance = draft.set("train.balance", "sets", origin=given)
    line = f"the class images are a second set, data.1, of {num} pictures with loss_weight = {weight:g}; {balance}"
    return f"{line}; `{_write_command(keys)}` paints those that are missing"


def answer_class(name: str, setting: str) -> Any:
    """What a flag of the class images becomes; `set_prior` writes it."""

    def answer(draft: Draft, keys: Keys, value: Any) -> str:
        return f"data.1.{setting}" if keys.read_bool("with_prior_preservation") else _WITHOUT

    return answer


def answer_num_class(draft: Draft, keys: Keys, *, value: Any) -> str:
    """`--num_class_images`: those that are missing are painted there."""
    if not keys.read_bool("with_prior_preservation"):
        return _WITHOUT
    read_int(value, name="--num_class_images")
    return f"data.1.limit = {value}; those that are missing are painted before by `{_write_command(keys)}`"


def answer_generation(draft: Draft, keys: Keys, *, value: Any) -> str:
    """How missing class images are painted."""
    if not keys.read_bool("with_prior_preservation"):
        return _WITHOUT
    return NO_EFFECT + f"class images are painted beforehand, one at a time, in the model's own precision: `{_write_command(keys)}`"


def _write_command(keys: Keys) -> str:
    """What paints the class images that are missing."""
    model, folder = str(keys.read_text("pretrained_model_name_or_path") or "MODEL"), str(keys["class_data_dir"])
    num = keys.read_int("num_class_images") or 100
    return shlex.join(["weber", "data", "class-images", model, folder, "--prompt", str(keys["class_prompt"]), "--num", str(num)])
