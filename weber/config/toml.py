"""TOML: read with errors that name the line, written so that it reads back equal."""

from __future__ import annotations

import difflib
import json
import math
import re
import tomllib
from collections.abc import Mapping
from datetime import date, datetime, time
from pathlib import Path
from typing import Any

from weber.config.numbers import list_numbers
from weber.errors import ConfigError

_POSITION = re.compile(r" \(at (?:line (\d+), column (\d+)|end of document)\)$")
_BARE_KEY = re.compile(r"[A-Za-z0-9_-]+")

_FIXES: dict[str, str] = {
    "'\\'": "write text with \\ in single quotes, such as find = '\\d+'; Windows paths with / or so too: path = 'C:\\pictures'",
    "hex value": "write Windows paths with / or in single quotes: path = 'C:\\pictures'",
    "overwrite": "this key or section was already given above; keep one of them (sets of pictures are [[data]])",
    "twice": "this section was already given above; put all its keys under one header",
    "Duplicate": "this key is given twice; keep one of them",
    "namespace": "this section was already given above in another form; keep one of them (sets of pictures are [[data]])",
    "Invalid value": "put text in quotes; yes and no are written true and false",
    "Expected '='": "a line is key = value; a section is [name]",
    "Invalid statement": "a line is key = value; a section is [name]",
    "newline": "one setting per line; put text in quotes",
    "Unclosed array": "close the list with ]",
    "Illegal character": "close the text with a quote on the same line",
    "Unterminated": "close the text with a quote",
}
"""What helps, by words of the parser's message."""


def read_toml(path: Path) -> dict[str, object]:
    """The tree in a TOML file. ConfigError: no such file, a folder, not text, not TOML, empty."""
    try:
        text = path.read_text(encoding="utf-8-sig")
    except FileNotFoundError as error:
        raise ConfigError(f"there is no file {path}", got=str(path), expected="a TOML file", fix=_propose_file(path)) from error
    except UnicodeDecodeError as error:
        raise ConfigError(
            f"{path} is not a text file in UTF-8",
            got=f"byte 0x{error.object[error.start]:02x} at position {error.start}",
            expected="a TOML file such as run.toml",
            fix="name the TOML file; if this is the one, save it again with the encoding UTF-8",
        ) from error
    except OSError as error:
        if path.is_dir():
            inside = sorted(path.glob("*.toml"))
            fix = f"name a file in it, such as {inside[0]}" if inside else "name a TOML file; this folder holds none"
            raise ConfigError(f"{path} is a folder", got="a folder", expected="a TOML file", fix=fix) from error
        raise ConfigError(f"{path} cannot be read", got=error.strerror or str(error), fix="make the file readable") from error
    try:
        tree = tomllib.loads(text)
    except tomllib.TOMLDecodeError as error:
        raise _explain_syntax(path, text, str(error)) from error
    if not tree:
        raise ConfigError(
            f"{path} is empty",
            got="no settings",
            expected="at least one set of pictures",
            fix='write into it: [[data]] and on the next line path = "folder/of/pictures"',
        )
    return tree


def _propose_file(path: Path) -> str:
    beside = [file.name for file in path.parent.glob("*.toml")] if path.parent.is_dir() else []
    near = difflib.get_close_matches(path.name, beside, n=1) or sorted(beside)[:1]
    return f"did you mean {path.parent / near[0]}?" if near else "check the path; it is relative to the folder you are in"


def _explain_syntax(path: Path, text: str, message: str) -> ConfigError:
    found = _POSITION.search(message)
    lines = text.splitlines() or [""]
    line = int(found[1]) if found and found[1] else len(lines)
    # The parser stops behind a statement that it refuses, which may be the start of the next line.
    column = int(found[2]) if found and found[2] else len(lines[-1]) + 1
    if column == 1 and line > 1 and "overwrite" in message:
        line, column = line - 1, len(lines[line - 2]) + 1
    got = lines[line - 1].strip() if line <= len(lines) else ""
    words = _POSITION.sub("", message)
    other = {".json": "JSON", ".yaml": "YAML", ".yml": "YAML"}.get(path.suffix.lower()) or ("JSON" if text.lstrip().startswith("{") else "")
    fix = f"this looks like {other}; a run is described in TOML: sections as [train], lines as steps = 100" if other else ""
    return ConfigError(
        f"{path} is not valid TOML at line {line}, column {column}: {words[:1].lower()}{words[1:]}",
        got=got or "the end of the file",
        expected="TOML: sections as [name], lines as key = value",
        fix=fix or _propose_number(got) or next((advice for word, advice in _FIXES.items() if word in message), "correct this line"),
    )


def _propose_number(line: str) -> str:
    """What to write where a number is written with more than digits."""
    key, _, value = line.partition("=")
    number = next(list_numbers(value.partition("#")[0]), None)
    is_right = number is None or not key.strip() or value.strip() == write_value(number)
    return "" if is_right else f"write {key.strip()} = {write_value(number)}"


def write_toml(tree: Mapping[str, Any]) -> str:
    """A tree of sections (tables, or lists of tables) as TOML; `None` is left out, as TOML has no such value."""
    return "\n".join(block for name, content in tree.items() for block in _write_tables(name, content))


def _write_tables(name: str, content: Any) -> list[str]:
    """Blocks of lines: a table, or each of a list of tables, followed by the tables in it."""
    blocks = []
    for header, table in [(f"[[{name}]]", entry) for entry in content] if isinstance(content, list) else [(f"[{name}]", content)]:
        inner = {key: value for key, value in table.items() if _is_table(value)}
        lines = [f"{write_key(key)} = {write_value(value)}" for key, value in table.items() if value is not None and key not in inner]
        blocks.append("\n".join([header, *lines]) + "\n")
        blocks += [block for key, value in inner.items() for block in _write_tables(f"{name}.{write_key(key)}", value)]
    return blocks


def _is_table(value: object) -> bool:
    """A table, or a list of tables; an empty list is written as a value."""
    return isinstance(value, Mapping) or (isinstance(value, list) and value != [] and all(isinstance(item, Mapping) for item in value))


def write_value(value: object) -> str:
    """One value in TOML notation. TypeError: not a type that TOML knows."""
    match value:
        case bool():
            return "true" if value else "false"
        case int():
            return str(value)
        case float():
            return repr(value) if math.isfinite(value) else str(value)
        case Path():
            return _quote(value.as_posix())
        case str():
            return _quote(value)
        case list() | tuple():
            return f"[{', '.join(write_value(item) for item in value)}]"
        case Mapping():
            return "{" + ", ".join(f"{write_key(str(key))} = {write_value(item)}" for key, item in value.items()) + "}"
        case datetime() | date() | time():
            return value.isoformat()
        case _:
            raise TypeError(f"no TOML for {type(value).__name__}")


def _quote(text: str) -> str:
    # JSON escapes what TOML wants escaped, but for DEL; beyond the basic plane JSON's surrogate pairs would not be TOML.
    return json.dumps(text, ensure_ascii=False).replace("\x7f", "\\u007f")


def write_key(key: str) -> str:
    """A name in a header or before an equals sign, in quotes where it needs them."""
    return key if _BARE_KEY.fullmatch(key) else _quote(key)
