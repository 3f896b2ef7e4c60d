"""Which sets of pictures a command means: a dataset TOML, a folder of folders named `10_word class`, or a metadata file."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

from weber.config.importers.answers import list_names
from weber.config.importers.draft import Draft
from weber.config.importers.kohya.data import SET
from weber.config.importers.kohya.read import Order, build_missing
from weber.config.importers.outcome import Given
from weber.config.importers.texts import read_tree
from weber.config.importers.tool import find_file
from weber.config.importers.values import read_int
from weber.errors import ConfigError

_RENAMED = {"train_batch_size": "batch_size", "dataset_repeats": "num_repeats", "caption_extention": "caption_extension"}
_TOML_ONLY = {
    "image_dir", "image_directory", "metadata_file", "conditioning_data_dir", "control_directory", "is_reg", "custom_attributes",
    "class_tokens", "network_multiplier", "cache_directory", "multiple_target", "batch_size",
    "num_repeats",
}
SET_OPTIONS = {name: name for name in list_names(SET) if name not in _TOML_ONLY} | _RENAMED
"""Options of the command line that hold for every set that does not say it itself -> what they are called there."""

_SOURCES = ("dataset_config", "train_data_dir", "reg_data_dir", "in_json")
_SAID = "each set says it itself"


@dataclass
class PictureSet:
    """A set, with what is looked up for it; `is_parent`: its folders are the sets, but they are not here."""

    given: list[Given]
    is_parent: bool = False


@dataclass
class Sets:
    """All sets; `used`: options that name them, which have their answer; `idle`: keys that no set needs, and why."""

    sets: list[PictureSet] = field(default_factory=list)
    used: list[Given] = field(default_factory=list)
    idle: list[tuple[Given, str]] = field(default_factory=list)


Layer = list[Given]


def read_sets(order: Order, draft: Draft) -> Sets:
    """The sets that a command means. Raises ConfigError: a file that is not here, or no pictures."""
    sets = Sets()
    line = [replace(one, name=SET_OPTIONS[one.name]) for one in order.given if one.name in SET_OPTIONS]
    sources = {one.name: one for one in order.given if one.name in _SOURCES and one.value not in (None, "")}
    if order.sets is not None:
        _read_tree(sets, order.sets, [], where=order.path.name)
    elif "dataset_config" in sources:
        given = sources["dataset_config"]
        path = find_file(str(given.value), beside=order.path)
        if path is None:
            raise build_missing(given, "says which pictures are trained on")
        draft.files.append(str(path))
        draft.note(given, "translated", line="the sets of pictures")
        for name in _SOURCES[1:]:
            if name in sources:
                draft.note(sources[name], "no effect", line="dataset_config counts")
        tree = read_tree(path)
        _read_tree(sets, tree if isinstance(tree, Mapping) else {}, line, where=path.name)
    else:
        _read_options(sets, sources, line, draft=draft, beside=order.path)
    sets.used = [one for one in order.given if one.name in _SOURCES and one.value not in (None, "")]
    if not sets.sets:
        raise ConfigError(
            "The file names no pictures.",
            got=", ".join(one.text for one in sources.values()) or "neither dataset_config nor train_data_dir",
            expected="--dataset_config with a TOML, or --train_data_dir",
            fix="add --dataset_config, or name the folder of pictures behind the file: data.0.path=FOLDER",
        )
    return sets


# ---- a dataset TOML


def _read_tree(sets: Sets, tree: Mapping[str, Any], line: Layer, *, where: str) -> None:
    general = _list_layer(_check_table(tree.get("general", {}), "general", where), "general", where)
    datasets = tree.get("datasets")
    for number, dataset in enumerate(datasets if isinstance(datasets, list) else []):
        _check_table(dataset, f"datasets.{number}", where)
        own = _list_layer({key: value for key, value in dataset.items() if key != "subsets"}, f"datasets.{number}", where)
        subsets = dataset.get("subsets") or ([{}] if "image_directory" in dataset else [])
        seen: list[Any] = []
        for place, subset in enumerate(subsets):
            _check_level(number, place, subset, where)
            mine = _list_layer(subset, f"datasets.{number}.subsets.{place}", where)
            reason = _find_idle(subset, [mine, own, general, line], seen)
            if reason:
                sets.idle += [(one, reason) for one in mine]
                continue
            sets.sets.append(PictureSet(_look_up([mine, own, general, line])))
            sets.idle += [(one, _SAID) for one in mine]
        sets.idle += [(one, _SAID) for one in own]
    sets.idle += [(one, _SAID) for one in (*general, *line)]


def _check_table(table: Any, key: str, where: str) -> Mapping[str, Any]:
    if not isinstance(table, Mapping):
        raise ConfigError(f"{where}: {key} is no table.", got=f"{key} = {table!r}", expected=f"[{key}] with keys", fix=f"correct {key}")
    return table


def _check_level(number: int, place: int, subset: Any, where: str) -> None:
    if not isinstance(subset, Mapping) or not {"image_dir", "metadata_file"} & set(subset):
        key = f"datasets.{number}.subsets.{place}"
        if isinstance(subset, Mapping) and not subset:
            return
        raise ConfigError(
            f"{where}: {key} names no pictures.",
            got=", ".join(map(str, subset)) if isinstance(subset, Mapping) else str(subset),
            expected="image_dir, or metadata_file",
            fix=f"add image_dir to {key}",
        )


def _find_idle(subset: Mapping[str, Any], layers: Sequence[Layer], seen: list[Any]) -> str:
    """Why the scripts leave a subset out; empty where they do not."""
    repeats = next((one.value for layer in layers for one in layer if one.name == "num_repeats"), 1)
    if read_int(repeats, name="num_repeats") < 1:
        return "num_repeats is below 1: the scripts leave the set out"
    folder = subset.get("metadata_file") or subset.get("image_dir")
    if folder is not None and folder in seen:
        return "the folder is named twice in a dataset: the scripts read the first alone"
    seen.append(folder)
    return ""


def _list_layer(table: Mapping[str, Any], spelled: str, where: str) -> Layer:
    return [Given(name, value, f"{spelled}.{name}", where) for name, value in table.items()]


def _look_up(layers: Sequence[Layer]) -> Layer:
    """Each key where it is said first: the subset, its dataset, [general], the command line."""
    found: dict[str, Given] = {}
    for layer in layers:
        for one in layer:
            if one.name not in found:
                found[one.name] = one
    return list(found.values())


# ---- options


def _read_options(sets: Sets, sources: Mapping[str, Given], line: Layer, *, draft: Draft, beside: Path) -> None:
    folder, table = sources.get("train_data_dir"), sources.get("in_json")
    if table is not None:
        layer = [replace(table, name="metadata_file"), *([replace(folder, name="image_dir")] if folder is not None else [])]
        sets.sets.append(PictureSet(_look_up([layer, line])))
        return
    for name in ("train_data_dir", "reg_data_dir"):
        given = sources.get(name)
        if given is None:
            continue
        found = list(_list_folders(given, is_class=name == "reg_data_dir", beside=beside))
        if found:
            draft.note(given, "translated", line=f"a set for each folder in it: {', '.join(Path(str(one[0].value)).name for one in found)}")
            sets.sets += [PictureSet(_look_up([one, line])) for one in found]
        elif name == "train_data_dir" or Path(str(given.value)).is_dir():
            layer = [replace(given, name="image_dir")]
            sets.sets.append(PictureSet(_look_up([layer, line]), is_parent=True))
            draft.faults.append(_say_parent(given))
        else:
            draft.note(given, "refused", line="the folder is not here: write a set for it, with loss_weight = prior_loss_weight")


def _say_parent(given: Given) -> str:
    if not Path(str(given.value)).is_dir():
        return (
            f"{given.value} is not on this machine. The scripts read only folders in it that are named like 10_word: the number is"
            " data.N.repeats; write a set for each."
        )
    return f"{given.value} holds no folder named like 10_word: the scripts would have found no pictures. Here all in it are one set."


def _list_folders(given: Given, *, is_class: bool, beside: Path) -> Iterator[Layer]:
    """The folders of a folder whose names say how often, and what is on their pictures."""
    named = Path(str(given.value)).expanduser()
    folder = named if named.is_dir() else beside.parent / named
    for one in sorted(folder.iterdir()) if folder.is_dir() else []:
        number, _, words = one.name.partition("_")
        if not one.is_dir() or not number.isdecimal() or int(number) < 1:
            continue
        keys: dict[str, Any] = {"image_dir": one.as_posix(), "num_repeats": int(number)}
        keys |= {"is_reg": True} if is_class else {}
        keys |= {"class_tokens": words} if words else {}
        yield [Given(name, value, f"{name} of {one.name}", given.where) for name, value in keys.items()]
