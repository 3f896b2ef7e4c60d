"""SimpleTuner's multidatabackend.json: sets of pictures with their references, masks and filters of captions."""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from weber.config.importers.answers import Table
from weber.config.importers.apply import apply
from weber.config.importers.draft import Draft, Keys
from weber.config.importers.named import find_named
from weber.config.importers.outcome import Given
from weber.config.importers.simpletuner.captions import read_kind
from weber.config.importers.simpletuner.data_keys import (
    CONDITIONING_TABLE,
    DISABLED_TABLE,
    IS_ALONE,
    OTHER_TABLES,
    SET_DEFAULTS,
    SET_TABLE,
    TEXT_TABLE,
    USERS,
    is_mask,
)
from weber.config.importers.simpletuner.facts import find_family, is_flux2, is_full
from weber.config.importers.simpletuner.objective import find_law
from weber.config.importers.simpletuner.read import build_given, fill_placeholders
from weber.config.importers.simpletuner.sets import EVALUATED, find_unit, hold_out
from weber.config.importers.texts import read_text, read_tree
from weber.config.importers.tool import find_file
from weber.config.importers.values import read_bool, read_float, read_texts
from weber.config.regexes import check_regex
from weber.errors import ConfigError

_BLOCKS = ("parquet", "huggingface", "webshart", "caption_shuffle", "conditioning_config", "video", "audio")
"""Tables in a set whose keys have answers of their own."""
_USUAL = ("multidatabackend.json", "config/multidatabackend.json")
_CACHES = ("text_embeds", "image_embeds", "conditioning_image_embeds")
_OF_RUN = (
    "resolution",
    "resolution_type",
    "minimum_image_size",
    "maximum_image_size",
    "target_downsample_size",
    "caption_strategy",
    "instance_prompt",
    "prepend_instance_prompt",
    "only_instance_prompt",
    "disable_multiline_split",
)
"""Options of the run that hold for sets which say nothing of it."""
_CONTROL_SIGNS = frozenset(".^$*+?{}[]\\|()")
_ALIGNED = 16


@dataclass(frozen=True)
class Entry:
    """A set of the file."""

    id: str
    kind: str
    given: Sequence[Given]
    is_off: bool

    def read_list(self, name: str) -> list[str]:
        """Names of other sets."""
        return next((read_texts(one.value) for one in self.given if one.name == name and one.value), [])

    def find(self, name: str) -> Any:
        """The value of a key; None where it is not."""
        return next((one.value for one in self.given if one.name == name), None)


def read_entries(draft: Draft, config: Keys) -> list[Entry]:
    """The sets of the file that the options name. Raises ConfigError."""
    value = config["data_backend_config"]
    if isinstance(value, list):
        return parse_entries(value, where=config.find("data_backend_config").where, config=config)
    if value is None:
        start = Path(draft.files[0])
        found = next((path for name in _USUAL if (path := find_file(name, beside=start)) is not None), None)
        path = find_named(draft, str(found or _USUAL[0]), key="data_backend_config, which was left out,")
    else:
        path = find_named(draft, str(value), key="data_backend_config")
    return parse_entries(read_tree(path), where=path.name, config=config)


def parse_entries(tree: Any, *, where: str, config: Keys) -> list[Entry]:
    """The sets of a list. Raises ConfigError."""
    if not isinstance(tree, list) or not tree or not all(isinstance(one, Mapping) for one in tree):
        raise ConfigError(
            f"{where} is no list of sets.",
            got="a table" if isinstance(tree, Mapping) else "an empty list" if tree == [] else "something else",
            expected='[{"id": "cats", "type": "local", "instance_data_dir": "datasets/cats"}, ...]',
            fix="name the multidatabackend.json that SimpleTuner reads as data_backend_config",
        )
    return [_parse_entry(one, number, where=where, config=config) for number, one in enumerate(tree)]


def _parse_entry(tree: Mapping[str, Any], number: int, *, where: str, config: Keys) -> Entry:
    name = str(tree.get("id") or f"set {number + 1}")
    kind = str(tree.get("dataset_type") or "image").strip().lower()
    is_off = any(read_bool(tree[key], name=key) for key in ("disabled", "disable") if tree.get(key) is not None)
    is_off = is_off or _has_no_share(tree)
    given = [build_given(key, value, spelled=key, where=f"{where}, {name}") for key, value in _flatten(tree)]
    variables = {"model_family": find_family(config), "output_dir": str(config["output_dir"] or ""), "id": name}
    return Entry(name, kind, fill_placeholders(given, choose_table(kind, is_off=is_off), variables=variables), is_off)


def _has_no_share(tree: Mapping[str, Any]) -> bool:
    share = tree.get("probability")
    return share not in (None, "") and read_float(share, name="probability") <= 0


def _flatten(tree: Mapping[str, Any]) -> Iterator[tuple[str, Any]]:
    for key, value in tree.items():
        if key in _BLOCKS and isinstance(value, Mapping):
            yield from ((f"{key}.{inner}", one) for inner, one in value.items())
        else:
            yield str(key), value


def choose_table(kind: str, *, is_off: bool) -> Table:
    """What becomes of the keys of a set. Raises ConfigError for sets of another kind of model."""
    if is_off:
        return DISABLED_TABLE
    if kind in ("video", "audio"):
        raise ConfigError(
            f"a set has dataset_type = {kind}, which is for models of video or sound.",
            got=f"dataset_type = {kind}",
            expected="sets of still pictures",
            fix="remove that set, or give it the dataset_type image",
        )
    if kind in _CACHES:
        return TEXT_TABLE
    if kind == "conditioning":
        return CONDITIONING_TABLE
    return OTHER_TABLES.get(kind, SET_TABLE)


# ---- into a draft


def translate_sets(draft: Draft, entries: Sequence[Entry], *, config: Keys) -> list[Keys]:
    """Each set of pictures as a [[data]]; every key of every set gets its answer. Returns the keys of sets of pictures."""
    pictures = [one for one in entries if not one.is_off and one.kind not in (*_CACHES, "conditioning", *OTHER_TABLES)]
    learned = [one for one in pictures if one.kind != EVALUATED]
    if not learned:
        raise ConfigError(
            "there is no set of pictures to learn.",
            got=", ".join(f"{one.id} ({one.kind}{', turned off' if one.is_off else ''})" for one in entries),
            expected="a set of dataset_type image",
            fix="add one, or remove disabled from one",
        )
    read: list[Keys] = []
    for number, entry in enumerate(pictures):
        keys = _build_keys(entry, config, number=number, is_alone=len(learned) == 1)
        apply(draft, keys, table=SET_TABLE, is_strict=False)
        if entry.kind == EVALUATED:
            hold_out(draft, keys)
        _add_geometry(draft, keys, config)
        _add_filters(draft, entry, entries, keys)
        read.append(keys)
    users = _attach(draft, pictures, entries, read)
    for entry in entries:
        if entry not in pictures:
            table = choose_table(entry.kind, is_off=entry.is_off)
            apply(draft, Keys(entry.given, defaults={USERS: users.get(entry.id)}), table=table, is_strict=False)
    return read


def _build_keys(entry: Entry, config: Keys, *, number: int, is_alone: bool) -> Keys:
    of_run = {name: config[name] for name in _OF_RUN if name in config}
    context = {
        "the run's batch size": config["train_batch_size"],
        "the model itself learns": is_full(config) if config["model_type"] is not None else None,
        IS_ALONE: is_alone and find_law(config) == "sigmoid",
    }
    keys = Keys(entry.given, defaults=SET_DEFAULTS | of_run | context, set_number=number)
    if read_kind(keys) == "webshart":
        raise ConfigError(
            f"the set {entry.id} has its pictures in webshart, which weber does not read.",
            got="type = webshart",
            expected="a folder, a bucket, a table or a dataset of the hub",
            fix="unpack it into a folder, and name that with type = local",
        )
    if read_kind(keys) in ("huggingface", "csv") and "caption_strategy" not in keys:
        keys.defaults["caption_strategy"] = read_kind(keys)
    return keys


def _add_geometry(draft: Draft, keys: Keys, config: Keys) -> None:
    """Sizes and windows to the pixel as SimpleTuner has them, which sets no small picture aside unless it is told so."""
    number = keys.set_number
    draft.set(f"data.{number}.geometry", "simpletuner", origin="sizes and windows as SimpleTuner has them")
    draft.set(f"data.{number}.upscale", True, origin="SimpleTuner enlarges small pictures")
    if is_flux2(config):
        draft.set(f"data.{number}.bucket_step", _ALIGNED, origin="SimpleTuner's alignment for FLUX.2")
    if draft.get(f"data.{number}.minimum_edge") is None:
        draft.set(f"data.{number}.minimum_edge", 1, origin="SimpleTuner sets no small pictures aside unless it is told so")


def _add_filters(draft: Draft, entry: Entry, entries: Sequence[Entry], keys: Keys) -> None:
    texts = [one for one in entries if one.kind == "text_embeds" and not one.is_off]
    wanted = entry.find("text_embeds")
    used = next((one for one in texts if one.id == wanted), None) or next((one for one in texts if one.find("default")), None)
    used = used or (texts[0] if texts else None)
    steps = [step for line in read_filters(draft, used) if (step := build_filter(line)) is not None]
    if steps:
        before = draft.get(f"data.{keys.set_number}.caption_steps") or []
        draft.set(f"data.{keys.set_number}.caption_steps", [*before, *steps], origin=f"caption_filter_list of {used.id if used else ''}")


def read_filters(draft: Draft, entry: Entry | None) -> list[str]:
    """What is taken out of captions, a line for each."""
    value = None if entry is None else entry.find("caption_filter_list")
    if isinstance(value, str) and value.strip():
        path = find_named(draft, value.strip(), key="caption_filter_list")
        value = read_tree(path) if path.suffix.lower() == ".json" else read_text(path).splitlines()
    return [str(one) for one in value if str(one).strip()] if isinstance(value, list) else []


def build_filter(line: str) -> dict[str, Any] | None:
    """A step that does what a line of the list does; None for a form that does nothing there."""
    if line.startswith("s/") and line.count("/") == 2:
        _, find, replacement = line.split("/")
        step: dict[str, Any] = {"kind": "regex", "find": find}
        return step | ({"replace_with": replacement} if replacement else {})
    if line.startswith("s/") and line.count("/") == 3:
        return None
    is_plain = not set(line) & _CONTROL_SIGNS or not _is_regex(line)
    return {"kind": "replace" if is_plain else "regex", "find": line}


def _is_regex(line: str) -> bool:
    try:
        re.compile(line)
    except re.error:
        return False
    return not check_regex(line, "")


# ---- references and masks


def _attach(draft: Draft, pictures: Sequence[Entry], entries: Sequence[Entry], read: Sequence[Keys]) -> dict[str, list[int]]:
    """References and masks to the sets that they belong to. Returns the numbers of those sets, by the names of these."""
    others = {one.id: one for one in entries if one.kind == "conditioning" and not one.is_off}
    users: dict[str, list[int]] = {}
    for number, (entry, keys) in enumerate(zip(pictures, read, strict=True)):
        named = [name for name in entry.read_list("conditioning_data") if name in others]
        named += [name for name, one in others.items() if one.find("source_dataset_id") == entry.id and name not in named]
        linked = [Keys(others[name].given, defaults=SET_DEFAULTS) for name in named]
        for name in named:
            users.setdefault(name, []).append(number)
        _attach_masks(draft, number, [one for one in linked if is_mask(one)])
        _attach_references(draft, number, [one for one in linked if not is_mask(one) and _is_reference(one)], keys)
    return users


def _is_reference(keys: Keys) -> bool:
    return (keys.read_text("conditioning_type") or "reference_strict").lower() in ("reference_strict", "reference_loose")


def _find_folder(keys: Keys) -> tuple[str, Given] | None:
    name = next((one for one in ("instance_data_dir", "instance_data_root") if one in keys), None)
    if name is not None:
        return str(keys[name]).strip(), keys.find(name)
    if "aws_bucket_name" in keys:
        return f"s3://{keys['aws_bucket_name']}/{keys.read_text('aws_data_prefix') or ''}".rstrip("/"), keys.find("aws_bucket_name")
    return None


def _attach_masks(draft: Draft, number: int, masks: Sequence[Keys]) -> None:
    found = next((folder for keys in masks if (folder := _find_folder(keys)) is not None), None)
    if found is not None:
        draft.set(f"data.{number}.loss_masks", found[0], origin=found[1])
        draft.set("objective.mask_mean", "picture", origin="SimpleTuner takes the mean of the whole picture, masked or not")


def _attach_references(draft: Draft, number: int, references: Sequence[Keys], keys: Keys) -> None:
    if not references:
        return
    columns = [str(one["image_column"] or one["huggingface.image_column"]) for one in references if read_kind(one) == "huggingface"]
    if columns and draft.get(f"data.{number}.hub") is not None:
        draft.set(f"data.{number}.conditioning_columns", columns, origin=references[0].find("id"))
    else:
        folders = [found for one in references if (found := _find_folder(one)) is not None]
        if not folders:
            return
        draft.set(f"data.{number}.conditioning", [folder for folder, _ in folders], origin=folders[0][1])
    is_loose = (references[0].read_text("conditioning_type") or "").lower() == "reference_loose"
    if is_loose:
        draft.set(f"data.{number}.conditioning_type", "reference_loose", origin=references[0].find("conditioning_type"))
        if all(find_unit(one) == "area" and "resolution" in one for one in references):
            sizes = [one.read_float("resolution") for one in references]
            draft.set(f"data.{number}.reference_sizes", sizes, origin=references[0].find("resolution"))
