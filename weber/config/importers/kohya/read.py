"""Files that start kohya's scripts, as keys: command lines of any shell, notebooks, `--config_file`, and saves of programs around them."""

from __future__ import annotations

import ast
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

from weber.config.importers.kohya.gui import check_gui, read_gui
from weber.config.importers.kohya.line import check_variables
from weber.config.importers.kohya.models import FLUX_KEYS, OTHER_MODELS, OTHER_PROGRAMS, TRAINERS, UI_TYPES, build_other_model
from weber.config.importers.kohya.page import read_page
from weber.config.importers.outcome import Given, Outcome
from weber.config.importers.shell import Command, check_read, read_flags
from weber.config.importers.texts import read_tree
from weber.config.importers.tool import Source, find_file
from weber.errors import ConfigError

FULL, LORA = TRAINERS
"""What trains the model itself, and what trains an adapter."""

LISTS = ("optimizer_args", "network_args", "lr_scheduler_args")
"""Options that are lists of `key=value`: each entry is a key of its own, `network_args.train_blocks`."""

_SHORT = {"c": "config_file"}
_DATASET_KEYS = {"general", "datasets"}


@dataclass
class Order:
    """What a file asks of kohya's scripts. `program`: which of them; `launch`: flags of the program that starts it; `given`: its own flags,
    those that count last; `loose`: keys of a file in which unknown ones are not read, and no error; `answered`: keys that got an answer on
    the way; `path`: beside which other files are looked for."""

    program: str
    path: Path
    given: list[Given] = field(default_factory=list)
    launch: list[Given] = field(default_factory=list)
    loose: list[Given] = field(default_factory=list)
    answered: list[Outcome] = field(default_factory=list)
    files: list[str] = field(default_factory=list)
    sets: Mapping[str, Any] | None = None
    is_gui: bool = False


def is_ours(source: Source) -> bool:
    """Whether a file is one of kohya's scripts, or of a program around them."""
    if source.script is not None:
        return any(name in (*TRAINERS, *OTHER_PROGRAMS) for name in source.programs)
    top = source.top
    if {"LoRA_type", "flux1_checkbox", "model_train_type"} & top.keys():
        return True
    if isinstance(top.get("datasets"), list) and top.keys() <= _DATASET_KEYS:
        return True
    return _is_metadata(top) or (source.path.suffix.lower() == ".toml" and _is_config(top))


def read_order(source: Source) -> Order:
    """The keys of a file. Raises ConfigError: of another model, no training, or not whole."""
    if source.script is not None:
        order = _read_script(source)
    elif {"LoRA_type", "flux1_checkbox"} & source.top.keys():
        check_gui(source.top)
        order = Order(LORA if "LoRA_type" in source.top else FULL, source.path, is_gui=True)
        given, order.answered = read_gui(source.top, where=source.name, spell=spell_pairs)
        order.given = _keep_last(order, given)
    elif source.top.keys() <= _DATASET_KEYS and isinstance(source.top.get("datasets"), list):
        order = Order("", source.path, sets=source.top)
    elif _is_metadata(source.top):
        raise ConfigError(
            f"{source.path} says what is in pictures, not how to train: it is the metadata that --in_json or metadata_file names.",
            got=f"captions of {len(source.top)} pictures",
            expected="the script that starts flux_train.py or flux_train_network.py",
            fix="name that script, or a dataset TOML with metadata_file and image_dir",
        )
    else:
        order = _read_config(source)
    _check_model({one.name: one.value for one in order.given}, is_known=order.is_gui or source.script is not None)
    return order


def spell_pairs(name: str, value: object, *, spelled: str, where: str) -> Iterator[Given]:
    """`key=value` texts of an option as keys of their own; what is none stays with the option."""
    entries = value if isinstance(value, list | tuple) else str(value).split()
    for entry in entries:
        key, equals, text = str(entry).strip().strip("\"'").partition("=")
        if equals:
            worth = text.strip() if name == "network_args" else read_literal(text)
            yield Given(f"{name}.{key.strip()}", worth, f"{spelled} {key.strip()}", where)
        elif key:
            yield Given(name, key, spelled, where)


def read_literal(text: str) -> object:
    """A value as Python writes it, which is how the scripts read optimizer arguments; anything else is text."""
    try:
        value = ast.literal_eval(text.strip())
    except (ValueError, SyntaxError, MemoryError, RecursionError):
        return text.strip()
    return list(value) if isinstance(value, tuple) else value


# ---- scripts


def _read_script(source: Source) -> Order:
    assert source.script is not None
    found = [(command, name) for command in source.script.commands if (name := _find_program(command.words)) is not None]
    trainings = [(command, name) for command, name in found if name in TRAINERS]
    if not trainings:
        raise _build_no_training(source, [name for _, name in found])
    if len(trainings) > 1:
        lines = " and ".join(str(command.line) for command, _ in trainings)
        raise ConfigError(
            f"{source.path} starts {len(trainings)} trainings, in the lines {lines}.",
            got=", ".join(name for _, name in trainings),
            expected="one training",
            fix="leave one of them in a file of its own, and name that",
        )
    command, program = trainings[0]
    check_variables(source, command)
    place = next(number for number, word in enumerate(command.words) if _name(word) == program)
    order = Order(program, source.path)
    order.launch = [replace(one, spelled=f"accelerate {one.spelled}") for one in _read_words(command.words[:place], command, source)]
    given = list(_read_words(command.words[place + 1 :], command, source))
    config = next((one for one in reversed(given) if one.name in ("config_file", "c")), None)
    if config is not None:
        _take_config(order, config)
    order.given = _keep_last(order, [*order.given, *given])
    return order


def _find_program(words: Sequence[str]) -> str | None:
    names = [_name(word) for word in words]
    return next((name for name in names if name in TRAINERS or name in OTHER_PROGRAMS), None)


def _name(word: str) -> str:
    return word.replace("\\", "/").rpartition("/")[2]


def _read_words(words: Sequence[str], command: Command, source: Source) -> Iterator[Given]:
    where = f"{source.name}, line {command.line}"
    for name, value in read_flags(words):
        spelled = f"--{name}"
        plain, given = _SHORT.get(name, name), value if isinstance(value, list) else [value]
        for text in given:
            check_read(str(text), name=spelled, where=where)
        here = f"{source.path.parent.as_posix()}/"
        values = [text.replace("%~dp0", here) if isinstance(text, str) else text for text in given]
        if plain in LISTS:
            yield from spell_pairs(plain, values, spelled=spelled, where=where)
        else:
            yield Given(plain, values if isinstance(value, list) else values[0], spelled, where)


def _keep_last(order: Order, given: Sequence[Given]) -> list[Given]:
    """Of keys that are given several times the last, as argparse has it; the others get their answer."""
    last = {one.name: one for one in given}
    for one in given:
        if last[one.name] is not one and (one.value != last[one.name].value or one.where != last[one.name].where):
            line = f"given again: {last[one.name].text} ({last[one.name].where}) counts"
            order.answered.append(Outcome(one, "no effect", line))
    return list(last.values())


# ---- TOML


def _read_config(source: Source) -> Order:
    """A TOML file for `--config_file`, or a save of lora-scripts."""
    kind = str(source.top.get("model_train_type", ""))
    if kind and kind not in UI_TYPES:
        raise build_other_model(f"model_train_type = {kind}", where=source.name)
    given = list(_read_toml(source.top, where=source.name))
    order = Order(LORA, source.path)
    if kind:
        given, order.answered = read_page(given, spell=spell_pairs)
        given = _keep_last(order, given)
    keys = {one.name: one.value for one in given}
    is_adapter = UI_TYPES[kind] if kind else bool({"network_module", "network_dim", "network_alpha"} & keys.keys())
    return replace(order, program=LORA if is_adapter else FULL, given=given, loose=given)


def _take_config(order: Order, config: Given) -> None:
    """The keys of the file that `--config_file` names; the command line counts before it."""
    name = str(config.value)
    path = find_file(name if name.endswith(".toml") else f"{name}.toml", beside=order.path)
    if path is None:
        raise build_missing(config, "holds all settings")
    tree = read_tree(path)
    order.files.append(str(path))
    order.loose = list(_read_toml(tree if isinstance(tree, Mapping) else {}, where=path.name))
    order.given, order.path = list(order.loose), path


def _read_toml(tree: Mapping[str, Any], *, where: str) -> Iterator[Given]:
    """The scripts read the keys of all sections as if there were none."""
    for name, value in tree.items():
        if isinstance(value, Mapping):
            yield from _read_toml(value, where=where)
        elif name in LISTS and value not in (None, "", []):
            yield from spell_pairs(name, value, spelled=name, where=where)
        else:
            yield Given(name, value, name, where)


def _is_config(top: Mapping[str, Any]) -> bool:
    keys = set(top) | {key for value in top.values() if isinstance(value, Mapping) for key in value}
    return "pretrained_model_name_or_path" in keys and bool(
        keys & {"network_module", "train_data_dir", "dataset_config", "ae", "t5xxl", "optimizer_type", "save_model_as", "network_dim"}
    )


def _is_metadata(top: Mapping[str, Any]) -> bool:
    known = {"caption", "tags", "train_resolution", "image_size"}
    return bool(top) and all(isinstance(value, Mapping) and value and set(value) <= known for value in top.values())


def build_missing(given: Given, what: str) -> ConfigError:
    """The error for a file that another file names and that is not here."""
    return ConfigError(
        f"{given.where} names {given.value}, which {what}, and it is not here.",
        got=given.text,
        expected=f"that file where it is named, or beside {given.where.partition(',')[0]}",
        fix=f"copy {_name(str(given.value))} beside {given.where.partition(',')[0]}",
    )


def _build_no_training(source: Source, names: Sequence[str]) -> ConfigError:
    other = next((name for name in names if OTHER_PROGRAMS.get(name)), None)
    if other is not None:
        return ConfigError(
            f"{source.path} starts {other}, {OTHER_PROGRAMS[other]}",
            got=other,
            expected="flux_train.py or flux_train_network.py",
            fix="name a script that trains FLUX.1 with one of these",
        )
    return ConfigError(
        f"{source.path} starts no training.",
        got=", ".join(names) or "no program of kohya's scripts",
        expected="flux_train.py or flux_train_network.py",
        fix="name the script that starts the training; captions and tags are read from the files that those tools wrote",
    )


def _check_model(keys: Mapping[str, Any], *, is_known: bool) -> None:
    """Refuse what is for other models. `is_known`: the script says that it is FLUX."""
    if str(keys.get("model_type", "flux")).lower() != "flux":
        raise build_other_model(f"model_type = {keys['model_type']}", where="the command")
    found = next((name for name in OTHER_MODELS if keys.get(name) not in (None, "", False, "false", 0)), None)
    if found is not None:
        raise build_other_model(f"{found} = {keys[found]}", where="the command", what=OTHER_MODELS[found])
    if not is_known and "pretrained_model_name_or_path" in keys and not keys.keys() & FLUX_KEYS:
        raise build_other_model(", ".join(sorted(keys)[:5]), where="the file", what="of Stable Diffusion")
