"""Why a tree of settings is refused, in words: the key, what was got, what was expected, what to change."""

from __future__ import annotations

import difflib
import re
import tomllib
from collections.abc import Iterator, Mapping, Sequence
from datetime import date, time
from typing import Annotated, Any

from pydantic import ConfigDict, TypeAdapter, ValidationError

from weber.config.foreign import FOREIGN_NAMES, FOREIGN_NATURAL, FOREIGN_REFUSED, FOREIGN_SECTIONS
from weber.config.settings import SET_SECTION, SectionRows, Setting, find_section, list_sections, list_settings
from weber.config.toml import write_value
from weber.errors import ConfigError

Location = tuple[int | str, ...]
_SHOWN_CHARACTERS = 120


def build_config_error(error: ValidationError, tree: Mapping[str, object]) -> ConfigError:
    """One message that lists every problem which pydantic found in the tree."""
    problems: dict[str, ConfigError] = {}
    for item in error.errors(include_url=False):
        location = _cut_location(item["loc"])
        key = ".".join(map(str, location))
        # A short tuple is "missing" inside its key; only a key that is itself absent is missing to a person.
        kind = "value" if item["type"] == "missing" and item["loc"] != location else item["type"]
        if kind == "value_error":
            problems.setdefault(key, _explain_rule(str(item["ctx"]["error"]), location, tree))
        else:
            problems.setdefault(key, _explain_item(kind, location, tree))
    found = list(problems.values())
    if len(found) == 1:
        return found[0]
    listed = (f"{number}. {problem}".replace("\n", "\n   ") for number, problem in enumerate(found, 1))
    return ConfigError("\n".join([f"{len(found)} settings cannot be used", *listed]))


def _cut_location(location: Location) -> Location:
    """The part of pydantic's location that a person wrote: section, number of the set, key; not the branch of a union."""
    found = find_section(location)
    return location[: 2 if found is None else found[1] + 1]


def _explain_item(kind: str, location: Location, tree: Mapping[str, object]) -> ConfigError:
    key = ".".join(map(str, location))
    found = find_section(location)
    if found is None:
        return _explain_unknown_section(str(location[0]), tree[str(location[0])])
    section = found[0]
    setting = next((setting for setting in section.settings if setting.name == location[-1]), None)
    if kind == "missing":
        return _explain_missing(key, section, setting)
    got = _look_up(tree, location)
    if kind == "extra_forbidden":
        return _explain_unknown_key(key, section, got)
    if setting is None:
        return _explain_shape(key, section, got)
    if setting.table is not None:
        inner = next(one for one in list_sections() if one.type is setting.table and one.name == f"{section.name}.{setting.name}")
        return _explain_shape(key, inner, got)
    return ConfigError(f"{key} cannot have this value", got=_show(got), expected=setting.expected, fix=_propose_value(key, setting, got))


def _explain_missing(key: str, section: SectionRows, setting: Setting | None) -> ConfigError:
    if setting is None:
        return ConfigError(
            "data is missing: there are no pictures to train on",
            got="no [[data]]",
            expected="at least one set of pictures",
            fix='write [[data]] and below it path = "folder/of/pictures", or give data.0.path=folder/of/pictures',
        )
    fix = f"write {setting.name} = ... under {section.header}"
    return ConfigError(f"{key} is missing", got="nothing", expected=setting.expected, fix=fix)


def _explain_shape(key: str, section: SectionRows, got: object) -> ConfigError:
    """A section that is given as a value, or in the wrong number."""
    example = next((setting for setting in section.settings if setting.required), section.settings[0])
    lines = f"write {section.header} on a line of its own and its keys below it, such as {example.name} = ..."
    if section.name == SET_SECTION and isinstance(got, Mapping):
        lines = "write [[data]] with two brackets, or data.0.path=... on the command line: there may be several sets"
    elif not section.is_list and isinstance(got, list):
        lines = f"write [{section.name}] once, with one bracket"
    elif isinstance(got, str) and section.name == SET_SECTION:
        lines = f"write [[data]] and below it path = {write_value(got)}"
    elif got == []:
        lines = 'write [[data]] and below it path = "folder/of/pictures"'
    expected = f"one or more sections {section.header}" if section.is_list else f"a section {section.header}"
    return ConfigError(f"{key} cannot have this value", got=_show(got), expected=expected, fix=lines)


def _explain_rule(message: str, location: Location, tree: Mapping[str, object]) -> ConfigError:
    """A rule between settings, or one on a single setting; the validators of the sections write `what; fix`."""
    what, _, fix = message.partition("; ")
    key = ".".join(map(str, location))
    table = _look_up(tree, location)
    got = _show(table)
    if isinstance(table, Mapping):
        named = [name for name in table if re.search(rf"\b{re.escape(str(name))}\b", message)]
        got = ", ".join(f"{name} = {_show(table[name])}" for name in named)
    return ConfigError(f"{key}: {what}" if key else what, got=got, fix=fix)


def _explain_refused(key: str, got: object) -> ConfigError:
    """A setting of other trainers that has no place here."""
    name = _normalize(key)
    is_natural = got is False or got == 0 or got == FOREIGN_NATURAL.get(name)
    fix = "remove it; it is what weber does in any case" if is_natural else "remove it"
    return ConfigError(f"{key} is not a setting: {FOREIGN_REFUSED[name]}", got=f"{key} = {_show(got)}", fix=fix)


def _explain_unknown_section(name: str, got: object) -> ConfigError:
    if _normalize(name) in FOREIGN_REFUSED:
        return _explain_refused(name, got)
    names = [section.name for section in list_sections() if "." not in section.name]
    near = _find_near(name, names, cutoff=0.6)
    section = FOREIGN_SECTIONS.get(name.lower()) or (near[0] if near else "")
    what = f"{name} is not a section" if isinstance(got, Mapping | list) else f"{name} stands outside any section"
    if isinstance(got, Mapping | list) and section:
        header = f"[[{section}]]" if section == SET_SECTION else f"[{section}]"
        fix = f"write {header}"
    else:
        keys = _find_setting(name, None)
        fix = f"use {_describe_settings(keys)}" if keys else f"remove it{f', or write [{section}]' if section else ''}"
    return ConfigError(what, got=f"{name} = {_show(got)}", expected=f"one of the sections {', '.join(names)}", fix=fix)


def _explain_unknown_key(key: str, section: SectionRows, got: object) -> ConfigError:
    if _normalize(key) in FOREIGN_REFUSED:
        return _explain_refused(key, got)
    near = _find_setting(key.rpartition(".")[2], section)
    return ConfigError(
        f"{key} is not a setting",
        got=f"{key} = {_show(got)}",
        expected=f"a key of {section.header}: {', '.join(setting.name for setting in section.settings)}",
        fix=f"use {_describe_settings(near)}" if near else "remove it; `weber train --help` lists every setting",
    )


def _find_setting(name: str, section: SectionRows | None) -> list[Setting]:
    """What somebody who wrote this key may have meant; first the same section, then names of other trainers, then anywhere."""
    name = _normalize(name)
    here = {setting.name: setting for setting in section.settings} if section else {}
    by_key = {setting.key: setting for setting in list_settings()}
    everywhere = [setting for setting in by_key.values() if "." not in setting.section]
    near = _find_near(name, list(here), cutoff=0.75)
    if near:
        return [here[near[0]]]
    same = [setting for setting in everywhere if setting.name == name]
    if same:
        return same
    for foreign in (name, name.partition("_")[2]):  # some begin with the name of a model
        if foreign in FOREIGN_NAMES:
            return [by_key[key] for key in FOREIGN_NAMES[foreign].split()]
    near = _find_near(name, list(here), cutoff=0.6)
    if near:
        return [here[near[0]]]
    near = _find_near(name, [setting.name for setting in everywhere], cutoff=0.7)
    return [setting for setting in everywhere if near and setting.name == near[0]]


def _normalize(key: str) -> str:
    """The last part of a key as the tables of foreign names have it."""
    return key.rpartition(".")[2].lower().replace("-", "_").lstrip("_")


def _find_near(name: str, names: Sequence[str], *, cutoff: float) -> list[str]:
    return difflib.get_close_matches(name, names, n=1, cutoff=cutoff)


def _describe_settings(settings: Sequence[Setting]) -> str:
    return ", or ".join(f"{setting.key} ({setting.doc.partition('. ')[0].rstrip('.')})" for setting in settings)


def _propose_value(key: str, setting: Setting, got: object) -> str:
    strict = ConfigDict(strict=True, allow_inf_nan=False)
    annotated: Any = Annotated[setting.field.annotation, setting.field]
    adapter: TypeAdapter[Any] = TypeAdapter(annotated, config=strict)
    for candidate in _list_candidates(setting, got):
        if candidate is None:
            continue
        try:
            adapter.validate_python(candidate)
        except ValidationError:
            continue
        return f"write {key} = {write_value(candidate)}"
    default = "" if setting.default is None else f" for the default {write_value(setting.default)}"
    return f"set {key} to {setting.expected}" + ("" if setting.required else f"; or remove it{default}")


def _list_candidates(setting: Setting, got: object) -> Iterator[object]:
    """Values that may have been meant: the same thing written in another type, or the nearest choice."""
    if isinstance(got, str):
        yield {"yes": True, "on": True, "no": False, "off": False}.get(got.lower())
        yield _read_number(got)
        yield from _find_near(got.lower(), setting.choices, cutoff=0.5)
        yield [got]
    if isinstance(got, float) and got.is_integer():
        yield int(got)
    if isinstance(got, int | float | date | time) and not isinstance(got, bool):
        yield str(got)
    if isinstance(got, list) and len(got) == 1:
        yield got[0]


def _read_number(text: str) -> object:
    try:
        return tomllib.loads(f"value = {text.lower()}").get("value")
    except tomllib.TOMLDecodeError:
        return None


def _look_up(tree: Any, location: Location) -> Any:
    for part in location:
        tree = tree[part]
    return tree


def _show(value: object) -> str:
    try:
        text = write_value(value)
    except TypeError:
        text = repr(value)
    return text if len(text) <= _SHOWN_CHARACTERS else f"{text[:_SHOWN_CHARACTERS]}..."
