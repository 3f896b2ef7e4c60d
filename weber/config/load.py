"""From a TOML file and `section.key=value` to a `RunConfig`, and back to TOML."""

from __future__ import annotations

import os
import tomllib
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

from pydantic import ValidationError

from weber.config.explain import build_config_error, list_problems
from weber.config.lycoris import read_lycoris_file
from weber.config.overrides import LEFT_OUT, check_spelling, split_override
from weber.config.run import RunConfig
from weber.config.section import HIDDEN
from weber.config.settings import SectionRows, find_setting, is_known, list_sections
from weber.config.toml import read_toml, write_toml
from weber.errors import ConfigError


def load_config(path: str | Path | None, overrides: Sequence[str] = ()) -> RunConfig:
    """The run that a TOML file describes, changed by `section.key=value` texts.

    A value is read as TOML, else taken as text; `null` leaves out what the file says. ConfigError: everything that is wrong, in one
    message.
    """
    tree = {} if path is None else read_toml(Path(path))
    write_overrides(tree, overrides)
    return build_config(tree)


def is_own(path: Path) -> bool:
    """Whether a file is TOML with no other sections than ours: no other trainer need be asked whether it knows it."""
    if path.suffix != ".toml" or not path.is_file():
        return False
    try:
        return set(tomllib.loads(path.read_text(encoding="utf-8-sig"))) <= set(RunConfig.model_fields)
    except (tomllib.TOMLDecodeError, UnicodeDecodeError, OSError):
        return True  # what is wrong with it is said when it is loaded


def write_overrides(tree: dict[str, object], overrides: Sequence[str]) -> None:
    """Put `section.key=value` texts into a tree of plain values. Raises ConfigError for what is none."""
    values: dict[str, object] = {}
    for number, override in enumerate(overrides, 1):
        key, value = split_override(override, overrides[number:])
        if not isinstance(tree.get(key.partition(".")[0]), list):
            check_spelling(key, value, override=override)
        if key in values:
            raise ConfigError(f"{key} is given twice on the command line", got=override, expected="each key once", fix="keep one of them")
        values[key] = value
    for key, value in values.items():
        if value is not None:
            place_value(tree, key, value=value)
    for key in sorted((key for key, value in values.items() if value is None), reverse=True, key=_sort_entries):
        _leave_out(tree, key)


def build_config(tree: Mapping[str, object]) -> RunConfig:
    """The run that a tree of plain values describes. ConfigError: everything that is wrong, in one message."""
    tree = _read_lycoris(tree)
    try:
        return RunConfig.model_validate(dict(tree))
    except ValidationError as error:
        raise build_config_error(error, tree) from error


def check_tree(tree: Mapping[str, object]) -> dict[str, ConfigError]:
    """What is wrong with a tree of plain values, by key: of a setting, of a section, or empty for a rule between sections."""
    try:
        tree = _read_lycoris(tree)
    except ConfigError as error:
        return {"adapter.lycoris": error}
    try:
        RunConfig.model_validate(dict(tree))
    except ValidationError as error:
        return list_problems(error, tree)
    return {}


def _read_lycoris(tree: Mapping[str, object]) -> Mapping[str, object]:
    """With the settings of LyCORIS in the place of the file that has them."""
    adapter = tree.get("adapter")
    if not isinstance(adapter, Mapping) or not isinstance(adapter.get("lycoris"), str):
        return tree
    return {**tree, "adapter": {**adapter, "lycoris": read_lycoris_file(Path(adapter["lycoris"]).expanduser())}}


def save_config(config: RunConfig, path: Path) -> None:
    """Write every setting, defaults included, as TOML that `load_config` reads back equal. The file appears whole or not at all, and where
    it holds what is secret nobody else can read it."""
    path.parent.mkdir(parents=True, exist_ok=True)
    unfinished = path.with_name(f"{path.name}.{os.getpid()}.tmp")
    unfinished.unlink(missing_ok=True)
    unfinished.touch(mode=choose_mode(config))
    with unfinished.open("w", encoding="utf-8", newline="\n") as file:
        file.write(write_toml(config.model_dump()))
        file.flush()
        os.fsync(file.fileno())
    unfinished.replace(path)


def choose_mode(config: RunConfig) -> int:
    """Who may read a file with these settings: where they hold what is secret its owner alone, else whom the system lets."""
    return 0o600 if config.output.webhooks or config.model.text_encoder_url else 0o666


def list_changes(config: RunConfig) -> list[tuple[str, Any, Any]]:
    """Key, value and default of every setting that differs from its default; a required one has the default `None`. Of a secret one the
    value is not told."""
    tree = config.model_dump()
    return [
        change
        for section in list_sections()
        for key, table in _list_tables(tree, section.name.split("."))
        for change in _compare(key, table, section)
    ]


def _list_tables(tree: Any, names: Sequence[str], key: str = "") -> Iterator[tuple[str, Mapping[str, Any]]]:
    """The tables of that name that there are, with their keys."""
    if isinstance(tree, list):
        for place, entry in enumerate(tree):
            yield from _list_tables(entry, names, f"{key}.{place}")
    elif tree is not None and names:
        yield from _list_tables(tree.get(names[0]), names[1:], f"{key}.{names[0]}" if key else names[0])
    elif tree is not None:
        yield key, tree


def _compare(key: str, table: Mapping[str, Any], section: SectionRows) -> list[tuple[str, Any, Any]]:
    """What tables in it say is told of themselves."""
    plain = [setting for setting in section.settings if setting.table is None]
    changed = [one for one in plain if table[one.name] != one.default]
    return [(f"{key}.{one.name}", HIDDEN if one.is_secret else table[one.name], one.default) for one in changed]


def place_value(tree: dict[str, object], key: str, *, value: object) -> None:
    """Put a value at its place in the tree, making the sections and list entries on the way."""
    parts = key.split(".")
    place: object = tree
    for depth, (part, following) in enumerate(zip(parts, [*parts[1:], None], strict=True)):
        above = ".".join(parts[:depth])
        new: Any = value if following is None else [] if following.isdecimal() else {}
        if isinstance(place, dict):
            place[part] = new if following is None else place.get(part, new)
            place = place[part]
        elif isinstance(place, list):
            place = _set_entry(place, part, new, above=above, behind=".".join(parts[depth + 1 :]), replace=following is None)
        else:
            raise ConfigError(
                f"{key} cannot be set: {above} is not a section",
                got=f"{above} = {place!r}",
                expected="section.key=value, such as train.steps=500",
                fix=f"use {above}=value, or correct the key",
            )


def _leave_out(tree: dict[str, object], key: str) -> None:
    """Take what the file says out of the tree; what it does not say is left out already. An unknown key stays, to be explained."""
    if not is_known(key):
        place_value(tree, key, value=LEFT_OUT)
        return
    *above, last = key.split(".")
    place: Any = tree
    for part in above:
        place = place.get(part) if isinstance(place, dict) else _find_entry(place, part)
    if isinstance(place, dict):
        place.pop(last, None)
    elif _find_entry(place, last) is not None:
        del place[int(last)]


def _find_entry(entries: object, part: str) -> Any:
    return entries[int(part)] if isinstance(entries, list) and part.isdecimal() and int(part) < len(entries) else None


def _sort_entries(key: str) -> list[str]:
    """Entries of a list by their numbers."""
    return [part.zfill(9) for part in key.split(".")]


def _count_entry(part: str, *, above: str, behind: str, num: int) -> str:
    """The key with the entry of a list that a word in it means: a new one, a setting of the first, one counted from the end."""
    behind = f".{behind}" if behind else ""
    if part.isdecimal():
        return f"{above}.{num}{behind}"
    if find_setting(f"{above}.0.{part}") is not None:
        return f"{above}.0.{part}{behind}"
    from_end = num + int(part) if part.removeprefix("-").isdecimal() else 0
    return f"{above}.{max(from_end, 0)}{behind}"


def _set_entry(entries: list[object], part: str, new: object, *, above: str, behind: str, replace: bool) -> object:
    if not part.isdecimal() or int(part) > len(entries):
        raise ConfigError(
            f"{above}.{part} cannot be set: {above} is a list of {len(entries)}",
            got=f"{above}.{part}",
            expected=f"a number from 0 to {len(entries)} behind {above}; {len(entries)} adds a new entry",
            fix=f"write {_count_entry(part, above=above, behind=behind, num=len(entries))}",
        )
    if int(part) == len(entries):
        entries.append(new)
    elif replace:
        entries[int(part)] = new
    return entries[int(part)]
