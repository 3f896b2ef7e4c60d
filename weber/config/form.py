"""The settings as a form: rows with what a file says, what is the default, and what is typed; and what is typed as values again."""

from __future__ import annotations

import re
import tomllib
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Literal, get_args, get_origin

from weber.config.settings import SectionRows, Setting, find_setting, list_sections
from weber.config.toml import write_value

Kind = Literal["switch", "choice", "number", "path", "text", "lines", "toml", "secret"]

_UNITS: tuple[tuple[str, str], ...] = (
    (r"megapixels", "megapixels"),
    (r"(edge|side|width|height|resolution|bucket_step)$|^buckets$|^sizes$", "pixels"),
    (r"(^|_)steps$|_steps_|^start_step$|^every$|_every$|_after$|^checkpoint_steps$", "steps"),
    (r"^epochs$", "epochs"),
    (r"dropout|probability|^rate$|^share$|fraction$", "share"),
    (r"megabytes|_mb$", "MB"),
    (r"seconds$", "s"),
)
"""Of what a number is, by the setting's name."""


@dataclass(frozen=True)
class Row:
    """One setting in a form. `text`: what stands in the field; of a secret one nothing. `default`: what counts where that is empty.

    `is_given`: the file says it, or it was typed; `differs`: and it is not the default.
    """

    key: str
    setting: Setting
    kind: Kind
    unit: str
    text: str
    default: str
    is_given: bool
    differs: bool

    @property
    def name(self) -> str:
        """Within its table."""
        return self.setting.name

    def is_found(self, words: str) -> bool:
        """Whether every word of a search is in what is said of the setting."""
        said = f"{self.key} {self.setting.doc} {self.setting.expected} {self.text}".lower()
        return all(word in said for word in words.lower().split())


@dataclass(frozen=True)
class Block:
    """A section, or a table in one. `is_optional`: it may be taken out; `addable`: keys of tables that can be added in it."""

    key: str
    section: SectionRows
    rows: tuple[Row, ...]
    blocks: tuple[Block, ...]
    is_optional: bool
    addable: tuple[tuple[str, SectionRows], ...] = ()

    @property
    def title(self) -> str:
        """Its header, with its number where there may be several."""
        number = self.key.rpartition(".")[2]
        return f"{self.section.header} {int(number) + 1}" if number.isdecimal() else self.section.header

    @property
    def num_changed(self) -> int:
        """Rows that differ from the default, with those of the tables in it."""
        return sum(row.differs for row in self.rows) + sum(block.num_changed for block in self.blocks)

    def list_rows(self) -> Iterator[Row]:
        """Its rows and those of the tables in it."""
        yield from self.rows
        for block in self.blocks:
            yield from block.list_rows()


@dataclass(frozen=True)
class _Sheet:
    """What forms are made of: the tree of the file, what was typed over it, and keys of tables that are not in the file yet."""

    tree: Mapping[str, Any]
    typed: Mapping[str, str] = field(default_factory=dict)
    added: frozenset[str] = frozenset()


def build_form(tree: Mapping[str, Any], *, typed: Mapping[str, str] | None = None, added: Iterable[str] = ()) -> tuple[Block, ...]:
    """Every section with its settings. `typed`: texts by key, in the place of what the tree says; `added`: further tables, such as
    `data.1` or `adapter.lycoris`."""
    sheet = _Sheet(tree, typed or {}, frozenset(added))
    return tuple(block for section in list_sections() if "." not in section.name for block in _build_blocks(section, section.name, sheet))


def list_changes(tree: Mapping[str, Any], typed: Mapping[str, str]) -> list[tuple[str, object]]:
    """Keys of which the typed text means something else than the tree has, in the order of the form, with the new value; None leaves it
    out."""
    changes = list[tuple[str, object]]()
    for key, text in typed.items():
        setting = find_setting(key)
        if setting is None or setting.is_secret and not text.strip():
            continue
        value, known = read_typed(setting, text), _look_up(tree, key)
        if value != known or type(value) is not type(known):
            changes.append((key, value))
    return sorted(changes, key=lambda change: _find_order(change[0]))


def _find_order(key: str) -> tuple[str, tuple[int, ...], int]:
    """Section by section, entry by entry, and within each table as its settings stand."""
    setting, numbers = find_setting(key), tuple(int(part) for part in key.split(".") if part.isdecimal())
    section = next(one for one in list_sections() if setting is not None and one.name == setting.section)
    return key.partition(".")[0], numbers, [one.name for one in section.settings].index(key.rpartition(".")[2])


def read_typed(setting: Setting, text: str) -> object:
    """The value that a text in a form means; None: nothing is said. What is none of the setting's values stays the text, to be refused
    in words."""
    text = text.replace("\r\n", "\n")
    kinds, stripped = _list_types(setting.field.annotation), text.strip()
    if not stripped:
        return None
    if stripped[0] in "\"'" and isinstance(quoted := _parse(stripped), str):
        return quoted
    if setting.table is not None:
        return stripped
    if list in kinds and stripped[0] != "[" and str not in kinds and "\n" not in stripped and (one := _parse(stripped)) is not None:
        return one if type(one) in kinds else [one]
    if list in kinds and stripped[0] != "[" and (str not in kinds or "\n" in stripped) and not {int, float} & kinds:
        return [_read_item(line) for line in stripped.split("\n") if line.strip()]
    parsed = _parse(stripped) if kinds - {str} else None
    if parsed is not None and not isinstance(parsed, str):
        return parsed
    return stripped


def write_typed(setting: Setting, value: object) -> str:
    """The text that stands in a form for a value, and is read back as it."""
    if value is None:
        return ""
    if isinstance(value, str | Path):
        plain = str(value)
        return plain if read_typed(setting, plain) == plain else write_value(plain)
    if isinstance(value, list) and value and all(isinstance(one, str | Path) for one in value):
        lines = "\n".join(_write_item(str(one)) for one in value)
        return lines if read_typed(setting, lines) == value else write_value(value)
    return write_value(value)


def choose_kind(setting: Setting) -> Kind:
    """How a setting is typed."""
    kinds = _list_types(setting.field.annotation)
    if setting.is_secret:
        return "secret"
    if kinds == {bool}:
        return "switch"
    if setting.choices and list not in kinds and kinds <= {str, type(setting.choices[0])} and _is_literal(setting.field.annotation):
        return "choice"
    if kinds <= {int, float}:
        return "number"
    if list in kinds:
        return "lines" if not {int, float, dict} & kinds and not _has_lists_inside(setting.field.annotation) else "toml"
    if dict in kinds:
        return "toml"
    return "path" if kinds == {Path} or setting.expected == "a path" else "text"


def _build_blocks(section: SectionRows, key: str, sheet: _Sheet, *, is_inner: bool = False) -> list[Block]:
    """The blocks of a section at a key: one for each entry of a list."""
    if not section.is_list:
        is_there = not is_inner or isinstance(_look_up(sheet.tree, key), Mapping) or _is_added(key, sheet)
        return [_build_block(section, key, sheet, is_optional=is_inner)] if is_there else []
    entries = _look_up(sheet.tree, key)
    number = len(entries) if isinstance(entries, list) else 0
    while _is_added(f"{key}.{number}", sheet):
        number += 1
    return [_build_block(section, f"{key}.{place}", sheet, is_optional=True) for place in range(number)]


def _is_added(key: str, sheet: _Sheet) -> bool:
    return any(one == key or one.startswith(f"{key}.") for one in sheet.added)


def _build_block(section: SectionRows, key: str, sheet: _Sheet, *, is_optional: bool) -> Block:
    rows, blocks, addable = list[Row](), list[Block](), list[tuple[str, SectionRows]]()
    for setting in section.settings:
        place = f"{key}.{setting.name}"
        if setting.table is None:
            rows.append(_build_row(setting, place, sheet))
            continue
        value = _look_up(sheet.tree, place)
        if isinstance(value, str):  # a file in the place of the table
            rows.append(_build_row(setting, place, sheet))
            continue
        inner = next(one for one in list_sections() if one.name == f"{section.name}.{setting.name}")
        found = _build_blocks(inner, place, sheet, is_inner=True)
        blocks += found
        if inner.is_list:
            addable.append((f"{place}.{len(found)}", inner))
        elif not found:
            addable.append((place, inner))
    return Block(key, section, tuple(rows), tuple(blocks), is_optional, tuple(addable))


def _build_row(setting: Setting, key: str, sheet: _Sheet) -> Row:
    value = _look_up(sheet.tree, key)
    text = "" if setting.is_secret else write_typed(setting, value)
    is_given = value is not None
    if key in sheet.typed and not setting.is_secret:
        text = sheet.typed[key]
        value, is_given = read_typed(setting, text), bool(text.strip())
    default = "" if setting.required or setting.default is None or setting.default == [] else _write_default(setting)
    differs = is_given and (setting.required or value != setting.default)
    return Row(key, setting, choose_kind(setting), find_unit(setting), text, default, is_given, differs)


def _write_default(setting: Setting) -> str:
    return write_typed(setting, setting.default).replace("\n", ", ")


def find_unit(setting: Setting) -> str:
    """Of what its number is; empty where its name does not say it."""
    if not _list_types(setting.field.annotation) & {int, float, list}:
        return ""
    return next((unit for pattern, unit in _UNITS if re.search(pattern, setting.name)), "")


def list_unknown(tree: Any, key: str = "") -> Iterator[tuple[str, object]]:
    """What a tree says that is no setting, with its keys."""
    for name, value in tree.items() if isinstance(tree, Mapping) else ():
        place = f"{key}.{name}" if key else str(name)
        section = next((one for one in list_sections() if one.name == _strip_numbers(place)), None)
        if section is None and find_setting(place) is None:
            yield place, value
        elif section is not None and isinstance(value, list):
            for number, entry in enumerate(value):
                yield from list_unknown(entry, f"{place}.{number}")
        elif section is not None:
            yield from list_unknown(value, place)


def _strip_numbers(key: str) -> str:
    return ".".join(part for part in key.split(".") if not part.isdecimal())


def _look_up(tree: Any, key: str) -> Any:
    for part in key.split("."):
        if isinstance(tree, list):
            tree = tree[int(part)] if part.isdecimal() and int(part) < len(tree) else None
        else:
            tree = tree.get(part) if isinstance(tree, Mapping) else None
    return tree


def _list_types(annotation: Any) -> set[type]:
    """What values may be: of a list the lists alone."""
    origin, arguments = get_origin(annotation), get_args(annotation)
    if hasattr(annotation, "__metadata__"):
        return _list_types(arguments[0])
    if origin is Literal:
        return {type(one) for one in arguments}
    if origin in (list, tuple):
        return {list}
    if origin is dict:
        return {dict}
    if arguments:
        return set().union(*(_list_types(one) for one in arguments))
    return set() if annotation is type(None) else {annotation}


def _is_literal(annotation: Any) -> bool:
    """Whether the choices are all that there is."""
    if hasattr(annotation, "__metadata__"):
        return _is_literal(get_args(annotation)[0])
    if get_origin(annotation) is Literal:
        return True
    arguments = get_args(annotation)
    return bool(arguments) and all(one is type(None) or _is_literal(one) for one in arguments)


def _has_lists_inside(annotation: Any, *, is_inner: bool = False) -> bool:
    """Whether there are lists of lists, or of numbers."""
    if hasattr(annotation, "__metadata__"):
        return _has_lists_inside(get_args(annotation)[0], is_inner=is_inner)
    if get_origin(annotation) in (list, tuple):
        return is_inner or any(_has_lists_inside(one, is_inner=True) for one in get_args(annotation))
    if is_inner and annotation in (int, float):
        return True
    arguments: Sequence[Any] = () if get_origin(annotation) is Literal else get_args(annotation)
    return any(_has_lists_inside(one, is_inner=is_inner) for one in arguments)


def _read_item(line: str) -> str:
    line = line.strip()
    quoted = _parse(line) if line[0] in "\"'" else None
    return quoted if isinstance(quoted, str) else line


def _write_item(text: str) -> str:
    return text if text.strip() and _read_item(text) == text and "\n" not in text else write_value(text)


def _parse(text: str) -> object:
    """A text as one value of TOML; None for any other."""
    try:
        parsed = tomllib.loads(f"value = {text}")
    except tomllib.TOMLDecodeError:
        return None
    value = parsed.get("value") if len(parsed) == 1 else None
    return value if isinstance(value, bool | int | float | str | list | dict) else None
