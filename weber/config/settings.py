"""Every setting as a row: what the error messages and the three faces of `surface.py` are made from."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from types import NoneType
from typing import Any, Literal, get_args, get_origin

from annotated_types import Ge, Gt, Le, Lt
from pydantic.fields import FieldInfo

from weber.config.run import RunConfig
from weber.config.section import Secret, Section, Words

SET_SECTION = "data"
"""The section of which there are any number, each under its own `[[data]]`."""

_NOUNS: dict[object, tuple[str, str]] = {
    bool: ("true or false", "true or false"),
    int: ("a whole number", "whole numbers"),
    float: ("a number", "numbers"),
    str: ("text", "texts"),
    Path: ("a path", "paths"),
}


@dataclass(frozen=True)
class Setting:
    """One key: where it stands, what it may be and what it does. `default` has no meaning where `required`.

    `table`: it is a table of settings of its own, or a list of such tables.
    """

    section: str
    name: str
    expected: str
    choices: tuple[str, ...]
    default: object
    required: bool
    doc: str
    field: FieldInfo
    path: str
    table: type[Section] | None = None

    @property
    def is_secret(self) -> bool:
        """Whether its value is in no message."""
        return any(isinstance(one, Secret) for one in self.field.metadata)

    @property
    def key(self) -> str:
        """Dotted name; 0 stands for any entry of a list of tables."""
        return f"{self.path}.{self.name}"

    @property
    def is_collection(self) -> bool:
        """Whether it may be a list or a table."""
        annotation = self.field.annotation
        return self.table is not None or any(get_origin(one) in (list, tuple, dict) for one in (annotation, *get_args(annotation)))

    @property
    def summary(self) -> str:
        """The first sentence of the documentation. A point within brackets, or behind `et al`, ends none."""
        depth = 0
        for place, character in enumerate(self.doc):
            depth += (character == "(") - (character == ")")
            is_end = character == "." and self.doc[place + 1 : place + 2] in ("", " ")
            if is_end and depth == 0 and not self.doc[:place].endswith("et al"):
                return self.doc[:place]
        return self.doc


@dataclass(frozen=True)
class SectionRows:
    """One section, or a table in one, with its settings, in the order in which they are written. `is_list`: there may be several."""

    name: str
    doc: str
    type: type[Section]
    settings: tuple[Setting, ...]
    is_list: bool = False

    @property
    def header(self) -> str:
        """The line that opens it in a file."""
        return f"[[{self.name}]]" if self.is_list else f"[{self.name}]"


@cache
def list_sections() -> tuple[SectionRows, ...]:
    """Every section of `RunConfig` with its settings, each followed by the tables in it."""
    rows = []
    for name, field in RunConfig.model_fields.items():
        section = find_table(field.annotation)
        assert section is not None
        rows += _list_tables(name, name, section, field)
    return tuple(rows)


def find_section(location: Sequence[int | str]) -> tuple[SectionRows, int] | None:
    """The innermost section or table that a location in the tree is in, and how many parts of the location lead to it."""
    found = None
    for length in range(1, len(location) + 1):
        name = ".".join(part for part in location[:length] if isinstance(part, str))
        section = next((section for section in list_sections() if section.name == name), None)
        is_whole = section is not None and (not section.is_list or isinstance(location[length - 1], int))
        if section is not None and (is_whole or (found is None and length == 1)):
            found = section, length
    return found


def find_setting(key: str) -> Setting | None:
    """The setting that a dotted key means, of any entry of a list of tables; None for a section, and for what is none."""
    section, rest = _split_key(key)
    return None if section is None else next((setting for setting in section.settings if rest == [setting.name]), None)


def is_known(key: str) -> bool:
    """Whether a dotted key means a section, a table, a setting, or something within one."""
    section, rest = _split_key(key)
    return section is not None and (not rest or any(setting.name == rest[0] for setting in section.settings))


def _split_key(key: str) -> tuple[SectionRows | None, list[int | str]]:
    location: list[int | str] = [int(part) if part.isdecimal() else part for part in key.split(".")]
    found = find_section(location)
    return (None, location) if found is None else (found[0], location[found[1] :])


def list_settings() -> list[Setting]:
    """Every setting of every section."""
    return [setting for section in list_sections() for setting in section.settings]


def find_table(annotation: Any) -> type[Section] | None:
    """The kind of section that a type is, or holds in a list or beside nothing."""
    if isinstance(annotation, type) and issubclass(annotation, Section):
        return annotation
    arguments = () if get_origin(annotation) is Literal else get_args(annotation)
    return next((table for inner in arguments if (table := find_table(inner)) is not None), None)


def _list_tables(name: str, path: str, section: type[Section], field: FieldInfo) -> list[SectionRows]:
    is_list = get_origin(field.annotation) is list
    path = f"{path}.0" if is_list else path
    settings = tuple(_build_setting(name, key, inner, path=path) for key, inner in section.model_fields.items())
    rows = [SectionRows(name, _flatten(section.__doc__ if "." in name else field.description), section, settings, is_list)]
    for setting in settings:
        if setting.table is not None:
            rows += _list_tables(f"{name}.{setting.name}", f"{path}.{setting.name}", setting.table, setting.field)
    return rows


def _build_setting(section: str, name: str, field: FieldInfo, *, path: str) -> Setting:
    return Setting(
        section=section,
        name=name,
        expected=_name_type(field.annotation, field.metadata),
        choices=tuple(_list_choices(field.annotation)),
        default=None if field.is_required() else field.default,
        required=field.is_required(),
        doc=_flatten(field.description),
        field=field,
        path=path,
        table=find_table(field.annotation),
    )


def _flatten(text: str | None) -> str:
    """A docstring as one line."""
    return " ".join((text or "").split())


def _name_type(annotation: Any, metadata: Iterable[object] = (), *, plural: bool = False) -> str:
    """A type in words, such as `a whole number, at least 1`."""
    origin, arguments = get_origin(annotation), get_args(annotation)
    if hasattr(annotation, "__metadata__"):
        words = next((one.text for one in annotation.__metadata__ if isinstance(one, Words)), None)
        return words if words is not None else _name_type(arguments[0], [*annotation.__metadata__, *metadata], plural=plural)
    if origin is Literal:
        words = ", ".join(f'"{choice}"' for choice in arguments)
        return words if len(arguments) == 1 else f"one of {words}"
    if isinstance(annotation, type) and issubclass(annotation, Section):
        return "tables" if plural else "a table"
    if origin is dict:
        return "a table of names and values"
    if origin is list:
        return f"a list of {_name_type(arguments[0], plural=True)}"
    if origin is tuple:
        return f"a list of {len(arguments)} {_name_type(arguments[0], plural=True)}"
    if arguments:
        return " or ".join(_name_type(choice, metadata) for choice in arguments if choice is not NoneType)
    noun, limits = _NOUNS[annotation][plural], _name_limits(metadata)
    if not limits:
        return noun
    return f"{noun}, each {limits}" if plural else f"{noun} {limits}" if limits.startswith("above") else f"{noun}, {limits}"


def _name_limits(metadata: Iterable[object]) -> str:
    words = []
    for item in metadata:
        match item:
            case FieldInfo():
                words.append(_name_limits(item.metadata))
            case Ge():
                words.append(f"at least {item.ge}")
            case Gt():
                words.append(f"above {item.gt}")
            case Le():
                words.append(f"at most {item.le}")
            case Lt():
                words.append(f"below {item.lt}")
            case _:
                continue
    return " and ".join(word for word in words if word)


def _list_choices(annotation: Any) -> list[str]:
    if find_table(annotation) is not None:
        return []
    if get_origin(annotation) is Literal:
        return list(get_args(annotation))
    return [choice for inner in get_args(annotation) for choice in _list_choices(inner)]
