"""Files as trees of plain values: JSON, YAML and TOML, with errors that name the place."""

from __future__ import annotations

import json
import re
import tomllib
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import yaml

from weber.errors import ConfigError

MOST_BYTES = 16 * 2**20
"""No file of settings is larger; a notebook with its pictures may be."""
MOST_VALUES = 200_000

_SUFFIXES = {".json": "JSON", ".ipynb": "JSON", ".yaml": "YAML", ".yml": "YAML", ".toml": "TOML"}


def read_text(path: Path) -> str:
    """The text of a file, of any usual encoding. Raises ConfigError: no such file, a folder, too large, not text."""
    try:
        size = path.stat().st_size
        if size > MOST_BYTES:
            raise ConfigError(
                f"{path} is too large for a file of settings.",
                got=f"{size / 2**20:.0f} MiB",
                expected=f"at most {MOST_BYTES // 2**20} MiB",
                fix="name the file of settings itself",
            )
        data = path.read_bytes()
    except FileNotFoundError as error:
        raise ConfigError(f"there is no file {path}", got=str(path), fix="check the path") from error
    except IsADirectoryError as error:
        raise ConfigError(f"{path} is a folder", got="a folder", expected="a file", fix="name the file of settings in it") from error
    except OSError as error:
        raise ConfigError(f"{path} cannot be read", got=error.strerror or str(error), fix="make the file readable") from error
    for mark, encoding in ((b"\xff\xfe", "utf-16"), (b"\xfe\xff", "utf-16"), (b"", "utf-8-sig"), (b"", "cp1252")):
        if data.startswith(mark):
            try:
                text = data.decode(encoding)
            except UnicodeDecodeError:
                continue
            if "\0" not in text:
                return text
    raise ConfigError(f"{path} is not a text file", got="bytes that are no text", expected="a file of settings", fix="name another file")


def read_tree(path: Path) -> Any:
    """What a JSON, YAML or TOML file says. Raises ConfigError for one that is broken, or grows beyond reason."""
    return parse_tree(read_text(path), kind=_SUFFIXES.get(path.suffix.lower(), "JSON"), where=str(path))


def parse_tree(text: str, *, kind: str, where: str) -> Any:
    """The tree of a text that is JSON, YAML or TOML. Raises ConfigError."""
    try:
        tree = _PARSERS[kind](text)
    except json.JSONDecodeError as error:
        raise _build_error(where, kind, f"line {error.lineno}, column {error.colno}", error.msg, text) from error
    except tomllib.TOMLDecodeError as error:
        raise _build_error(where, kind, "", str(error), text) from error
    except yaml.YAMLError as error:
        mark = error.problem_mark if isinstance(error, yaml.MarkedYAMLError) else None
        problem = error.problem if isinstance(error, yaml.MarkedYAMLError) else None
        place = "" if mark is None else f"line {mark.line + 1}, column {mark.column + 1}"
        raise _build_error(where, kind, place, problem or str(error), text) from error
    except RecursionError as error:
        raise _build_error(where, kind, "", "it is nested too deeply", text) from error
    _check_size(tree, where=where)
    return tree


class _Loader(yaml.SafeLoader):
    """YAML without tags that make objects; keys given twice are errors."""

    def construct_mapping(self, node: yaml.MappingNode, deep: bool = False) -> dict[Any, Any]:
        names = [key.value for key, _ in node.value if isinstance(key, yaml.ScalarNode) and key.tag != "tag:yaml.org,2002:merge"]
        twice = next((name for name in names if names.count(name) > 1), None)
        if twice is not None:
            raise yaml.constructor.ConstructorError(None, None, f"the key {twice} is given twice", node.start_mark)
        return super().construct_mapping(node, deep)


def _parse_yaml(text: str) -> Any:
    return yaml.load(text, Loader=_Loader)  # a SafeLoader


def _parse_json(text: str) -> Any:
    """JSON, in which a comma may stand behind the last of a list or table, as guides print it."""
    try:
        return json.loads(text)
    except json.JSONDecodeError as error:
        try:
            return json.loads(_LAST_COMMA.sub(lambda found: found[1] or "", text))
        except json.JSONDecodeError:
            raise error from None


_LAST_COMMA = re.compile(r'("(?:[^"\\]|\\.)*")|,(?=\s*[}\]])')
"""A text, which stays as it is, or a comma with nothing behind it."""

_PARSERS: Mapping[str, Callable[[str], Any]] = {"YAML": _parse_yaml, "TOML": tomllib.loads, "JSON": _parse_json}


def _check_size(tree: Any, *, where: str) -> None:
    """A file of a few lines may name the same list again and again, until no memory holds it."""
    num, waiting = 0, [tree]
    while waiting:
        one = waiting.pop()
        num += 1
        waiting += list(one.values()) if isinstance(one, dict) else one if isinstance(one, list) else []
        if num > MOST_VALUES:
            raise ConfigError(
                f"{where} holds more values than any file of settings.",
                got=f"over {MOST_VALUES:,} values, written out",
                expected="the settings of a run",
                fix="remove anchors and aliases (&name, *name) from it" if where.endswith((".yaml", ".yml")) else "name another file",
            )


def _build_error(where: str, kind: str, place: str, problem: str, text: str) -> ConfigError:
    at = f" at {place}" if place else ""
    return ConfigError(
        f"{where} is not valid {kind}{at}: {problem[:1].lower()}{problem[1:]}",
        got="an empty file" if not text.strip() else f"a file of {len(text.splitlines())} lines",
        expected=f"a whole {kind} file",
        fix="correct that line" if place else "save it again from the program that made it",
    )
