"""What somebody who wrote a wrong key or value may have meant: what other trainers mean by it, else what is near."""

from __future__ import annotations

import re
import tomllib
from collections.abc import Iterator, Sequence
from datetime import date, time
from typing import Annotated, Any, get_origin

from pydantic import ConfigDict, TypeAdapter, ValidationError

from weber.config.foreign import find_foreign, find_spelling, find_value, read_word
from weber.config.foreign_names import FOREIGN_ADVICE, FOREIGN_NAMES, FOREIGN_NOTES
from weber.config.foreign_refused import FOREIGN_ALWAYS, FOREIGN_NATURAL, FOREIGN_REFUSED
from weber.config.foreign_values import FOREIGN_VALUES, REFUSED_VALUES
from weber.config.near import find_near
from weber.config.numbers import list_numbers, list_several
from weber.config.settings import SectionRows, Setting, list_settings
from weber.config.toml import write_value

_LEAVE_OUT = ("none", "null", "nil", "unset", "~")


def find_refusal(name: str, section: str = "") -> str | None:
    """Why there is no such setting, where other trainers have one."""
    name = _spell(name, section)
    return find_foreign(FOREIGN_REFUSED, name, section=section) or find_foreign(FOREIGN_ALWAYS, name, section=section)


def is_natural(name: str, got: object) -> bool:
    """Whether a setting that weber does not have says what it does in any case."""
    name = _spell(name, "")
    is_off = got is False or got == 0 or got in ("", "none", "off", "no", [])
    return (is_off or got == FOREIGN_NATURAL.get(name)) and find_foreign(FOREIGN_REFUSED, name) is not None


def propose_key(name: str, section: SectionRows | None, *, got: object) -> str | None:
    """What to write in place of an unknown key; None where nothing is known."""
    where = "" if section is None else section.name
    settings = _find_same(normalize(name), where)
    name = _spell(name, where)
    if not settings:
        line = find_value(FOREIGN_VALUES, name, value=got)
        reason = find_value(REFUSED_VALUES, name, value=got)
        if line is not None or reason is not None:
            return f"write {_write_meant(line)}" if line is not None else f"remove it; {reason}"
        is_of_section = f"{where}.{name}" in FOREIGN_NAMES  # there it means something else than anywhere
        advice = None if is_of_section else find_foreign(FOREIGN_ADVICE, name, section=where)
        if advice is not None:
            return advice
        by_key = {setting.key: setting for setting in list_settings()}
        settings = [by_key[key] for key in (find_foreign(FOREIGN_NAMES, name, section=where) or "").split()]
    if not settings:
        settings = _find_misspelled(normalize(name), section)
    note = find_foreign(FOREIGN_NOTES, name, section=where)
    return _describe_settings(settings, got, note) if settings else None


def _spell(name: str, section: str) -> str:
    return find_spelling((FOREIGN_NAMES, FOREIGN_ADVICE, FOREIGN_REFUSED, FOREIGN_ALWAYS), normalize(name), section=section)


def _find_same(name: str, section: str) -> list[Setting]:
    """Settings of that name elsewhere, unless it means something else in this section."""
    if f"{section}.{name}" in FOREIGN_NAMES or f"{section}.{name}" in FOREIGN_REFUSED:
        return []
    return [setting for setting in list_settings() if setting.name == name and "." not in setting.section]


def _find_misspelled(name: str, section: SectionRows | None) -> list[Setting]:
    """First with the section before the name, then in the same section, then anywhere."""
    joined = [setting for setting in list_settings() if f"{setting.section}_{setting.name}".replace(".", "_") == name]
    if joined:
        return joined
    here = {setting.name: setting for setting in section.settings} if section else {}
    near = find_near(name, list(here))
    if near is not None:
        return [here[near]]
    everywhere = [setting for setting in list_settings() if "." not in setting.section]
    near = find_near(name, [setting.name for setting in everywhere])
    return [setting for setting in everywhere if setting.name == near]


def normalize(key: str) -> str:
    """The last part of a key as the tables of foreign names have it."""
    return key.rpartition(".")[2].lower().replace("-", "_").lstrip("_")


def _describe_settings(settings: Sequence[Setting], got: object, note: str | None) -> str:
    described = ", or ".join(f"{setting.key} ({setting.summary})" for setting in settings)
    if note is not None:
        return f"use {described}; {note}"
    lines = [line for setting in settings if (line := _translate(setting, got)) is not None]
    return f"use {described}" + (f": {lines[0]}" if len(lines) == 1 else "")


def _translate(setting: Setting, got: object) -> str | None:
    """The line that means the same for a setting, where its value is written otherwise."""
    if _is_valid(setting, got):
        return None
    meant = find_value(FOREIGN_VALUES, setting.key, value=got)
    if meant is not None:
        return f"{setting.key} = {_write_meant(meant)}"
    found = next((one for one in list_candidates(setting, got) if _is_valid(setting, one)), None)
    return None if found is None else f"{setting.key} = {write_value(found)}"


def propose_value(key: str, setting: Setting, *, got: object) -> str:
    """What to write in place of a value that a setting cannot have."""
    same = next((one for one in list_conversions(setting, got) if _is_valid(setting, one)), None)
    if same is not None:
        return f"write {key} = {write_value(same)}"
    known = propose_known(key, setting, got=got)
    if known is not None:
        return known
    near = next((one for one in list_candidates(setting, got) if _is_valid(setting, one)), None)
    if near is not None:
        return f"write {key} = {write_value(near)}"
    several = [one for one in list_several(got) if _is_valid(setting, one)] if isinstance(got, str) else []
    if len(several) > 1:
        return f"write one number, such as {key} = {write_value(several[0])} or {key} = {write_value(several[-1])}"
    if isinstance(got, str) and got.lower() in _LEAVE_OUT and not setting.required:
        return f"remove the line; on the command line {key}=null leaves out what the file says"
    default = "" if setting.default is None else f" for the default {write_value(setting.default)}"
    return f"set {key} to {setting.expected}" + ("" if setting.required else f"; or remove it{default}")


def propose_known(key: str, setting: Setting, *, got: object) -> str | None:
    """What to write in place of a value that other trainers know; None for any other."""
    meant = _translate_items(setting, got) or find_value(FOREIGN_VALUES, setting.key, value=got)
    if meant is not None:
        return f"write {key} = {_write_meant(meant)}"
    return find_value(REFUSED_VALUES, setting.key, value=got) or _refuse_items(setting, got)


def _write_meant(text: str) -> str:
    return text.replace("; with ", ", with ")


def _translate_items(setting: Setting, got: object) -> str | None:
    """A list with what other trainers call its items."""
    if get_origin(setting.field.annotation) is not list or not isinstance(got, str | list):
        return None
    items = [got] if isinstance(got, str) else got
    meant = [find_value(FOREIGN_VALUES, setting.key, value=one) or _find_choice(setting, one) for one in items]
    written = [found or write_value(one) for one, found in zip(items, meant, strict=True)]
    text = f"[{', '.join(dict.fromkeys(written))}]"
    return text if any(meant) and _is_valid(setting, _read_toml(text)) else None


def _find_choice(setting: Setting, got: object) -> str | None:
    """A choice in another spelling, as TOML; None for one that is spelled as it should be."""
    found = next((choice for choice in setting.choices if choice != got and read_word(choice) == read_word(got)), None)
    near = found or (find_near(got.lower(), setting.choices) if isinstance(got, str) and got not in setting.choices else None)
    return None if near is None else write_value(near)


def _refuse_items(setting: Setting, got: object) -> str | None:
    items = got if isinstance(got, list) else []
    return next((why for one in items if (why := find_value(REFUSED_VALUES, setting.key, value=one)) is not None), None)


def _is_valid(setting: Setting, value: object) -> bool:
    if value is None:
        return False
    strict = ConfigDict(strict=True, allow_inf_nan=False)
    annotated: Any = Annotated[setting.field.annotation, setting.field]
    adapter: TypeAdapter[Any] = TypeAdapter(annotated, config=strict)
    try:
        adapter.validate_python(value)
    except ValidationError:
        return False
    return True


def list_conversions(setting: Setting, got: object) -> Iterator[object]:
    """The same value in another type."""
    if isinstance(got, str):
        yield {"yes": True, "on": True, "no": False, "off": False}.get(got.lower())
        yield _read_toml(got.lower())
        yield _read_toml(got.replace(",", ".")) if re.fullmatch(r"\d,\d+", got) else None
        yield next((choice for choice in setting.choices if read_word(choice) == read_word(got)), None)
    if isinstance(got, float) and got.is_integer():
        yield int(got)
    if isinstance(got, int | float | date | time) and not isinstance(got, bool):
        yield str(got)
    if isinstance(got, list) and len(got) == 1:
        yield got[0]


def list_candidates(setting: Setting, got: object) -> Iterator[object]:
    """Values that may have been meant: the same in another type, the nearest choice, or what a list would hold."""
    yield from list_conversions(setting, got)
    if isinstance(got, str):
        yield from list_numbers(got, setting.name)
        yield list_several(got) or None
        yield re.sub(r"^\s*(\d+)[\s_-]*(?:e|epochs?)\s*$", r"\1 epochs", got.lower())
        near = find_near(got.lower(), setting.choices)
        yield near
        yield [near]
        parts = [part.strip().strip("\"'") for part in re.split(r"[,;]", got.strip("[]"))]
        yield parts if len(parts) > 1 and not any(" " in part for part in parts) else None
        yield [got]


def _read_toml(text: str) -> object:
    try:
        return tomllib.loads(f"value = {text}").get("value")
    except tomllib.TOMLDecodeError:
        return None
