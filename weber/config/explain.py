"""Why a tree of settings is refused, in words: the key, what was got, what was expected, what to change."""

from __future__ import annotations

import re
from collections.abc import Mapping
from typing import Any

from pydantic import ValidationError

from weber.config.elsewhere import hide_logins
from weber.config.foreign import FOREIGN_SECTIONS
from weber.config.near import find_near
from weber.config.propose import find_refusal, is_natural, normalize, propose_key, propose_known, propose_value
from weber.config.section import HIDDEN
from weber.config.settings import SET_SECTION, SectionRows, Setting, find_section, find_setting, list_sections
from weber.config.toml import write_value
from weber.errors import ConfigError

Location = tuple[int | str, ...]
_SHOWN_CHARACTERS = 120
_MAY_BE_SECRET = re.compile(r"webhook|(?:^|[._])(?:token|api_key|password)$")


def build_config_error(error: ValidationError, tree: Mapping[str, object]) -> ConfigError:
    """One message that lists every problem which pydantic found in the tree."""
    found = list(list_problems(error, tree).values())
    if len(found) == 1:
        return found[0]
    listed = (f"{number}. {problem}".replace("\n", "\n   ") for number, problem in enumerate(found, 1))
    return ConfigError("\n".join([f"{len(found)} settings cannot be used", *listed]))


def list_problems(error: ValidationError, tree: Mapping[str, object]) -> dict[str, ConfigError]:
    """Every problem which pydantic found in the tree by its key: of a setting, of a section, or empty for a rule between sections."""
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
    return problems


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
    if setting.is_secret:
        return ConfigError(f"{key} cannot have this value", got=HIDDEN, expected=setting.expected, fix="correct it, or remove the line")
    if setting.table is not None:
        inner = next(one for one in list_sections() if one.type is setting.table and one.name == f"{section.name}.{setting.name}")
        return _explain_shape(key, inner, got)
    fix = _of_set(propose_value(key, setting, got=got), key)
    return ConfigError(f"{key} cannot have this value", got=_show(got), expected=setting.expected, fix=fix)


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
    return ConfigError(f"{key} cannot have this value", got=_show(got, key), expected=expected, fix=lines)


def _explain_rule(message: str, location: Location, tree: Mapping[str, object]) -> ConfigError:
    """A rule between settings, or one on a single setting; the validators of the sections write `what; fix`."""
    what, _, fix = message.partition("; ")
    key = ".".join(map(str, location))
    table = _look_up(tree, location)
    got = _show(table, key)
    if isinstance(table, Mapping):
        named = [name for name in table if re.search(rf"\b{re.escape(str(name))}\b", message)]
        got = ", ".join(f"{name} = {_show(table[name], f'{key}.{name}')}" for name in named)
    setting = find_setting(key)
    known = None if setting is None or setting.is_secret else propose_known(key, setting, got=table)
    return ConfigError(f"{key}: {what}" if key else what, got=got, fix=fix if known is None else _of_set(known, key))


def _explain_refused(key: str, got: object, *, reason: str) -> ConfigError:
    """A setting of other trainers that has no place here."""
    fix = "remove it; it is what weber does in any case" if is_natural(key, got) else "remove it"
    return ConfigError(f"{key} is not a setting: {reason}", got=f"{key} = {_show(got, key)}", fix=fix)


def _explain_unknown_section(name: str, got: object) -> ConfigError:
    names = [section.name for section in list_sections() if "." not in section.name]
    section = FOREIGN_SECTIONS.get(normalize(name)) or find_near(normalize(name), names)
    is_table = isinstance(got, Mapping | list)
    if is_table and section is not None:
        what, fix = f"{name} is not a section", f"write [[{section}]]" if section == SET_SECTION else f"write [{section}]"
    else:
        reason = find_refusal(name)
        if reason is not None:
            return _explain_refused(name, got, reason=reason)
        what = f"{name} is not a section" if is_table else f"{name} stands outside any section"
        fix = propose_key(name, None, got=HIDDEN if _is_secret(name) else got) or f"remove it{f', or write [{section}]' if section else ''}"
    return ConfigError(what, got=f"{name} = {_show(got, name)}", expected=f"one of the sections {', '.join(names)}", fix=fix)


def _explain_unknown_key(key: str, section: SectionRows, got: object) -> ConfigError:
    reason = find_refusal(key, section.name)
    if reason is not None:
        return _explain_refused(key, got, reason=reason)
    proposal = propose_key(key, section, got=HIDDEN if _is_secret(key) else got)
    return ConfigError(
        f"{key} is not a setting",
        got=f"{key} = {_show(got, key)}",
        expected=f"a key of {section.header}: {', '.join(setting.name for setting in section.settings)}",
        fix=_of_set(proposal, key) or "remove it; `weber train --help` lists every setting",
    )


def _of_set(text: str | None, key: str) -> str:
    """What is said of the first set, said of the one that the key is in."""
    number = key.split(".")[1] if key.startswith(f"{SET_SECTION}.") else "0"
    return (text or "").replace(f"{SET_SECTION}.0.", f"{SET_SECTION}.{number}.")


def _look_up(tree: Any, location: Location) -> Any:
    for part in location:
        tree = tree[part]
    return tree


def _show(value: object, key: str = "") -> str:
    if _is_secret(key):
        return HIDDEN
    try:
        text = write_value(value)
    except TypeError:
        text = repr(value)
    text = hide_logins(text)
    return text if len(text) <= _SHOWN_CHARACTERS else f"{text[:_SHOWN_CHARACTERS]}..."


def _is_secret(key: str) -> bool:
    """Whether what stands there is secret, or may be: an address by another name is one too."""
    setting = find_setting(key)
    return setting.is_secret if setting is not None and setting.table is None else _MAY_BE_SECRET.search(key) is not None
