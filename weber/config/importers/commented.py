"""A run as TOML in which each line says where it came from."""

from __future__ import annotations

import re
from collections import Counter

from weber.config.importers.outcome import Imported
from weber.config.toml import write_toml

_WIDTH = 132


def write_commented(imported: Imported) -> str:
    """The settings of an import as a file of weber, with the other trainer's key behind each line."""
    counts, header, lines = Counter[str](), "", list[str]()
    order = [name for name in type(imported.config).model_fields if name in imported.tree]
    for line in write_toml({name: imported.tree[name] for name in order}).splitlines():
        if found := re.fullmatch(r"(\[\[?)([^\]]+)\]\]?", line):
            header = _name_header(found[2], counts, is_list=found[1] == "[[")
            whole = header.rpartition(".")[0] if found[1] == "[[" else header
            lines += _write(line, imported.origins.get(whole))
            continue
        lines += _write(line, imported.origins.get(f"{header}.{line.partition(' = ')[0]}"))
    files = ", ".join(imported.files)
    return f"# Made by `weber import` from {files} ({imported.title}).\n\n" + "\n".join(lines) + "\n"


def _write(line: str, origin: str | None) -> list[str]:
    """The line with where it came from, behind it or where it is long above it."""
    if origin is None:
        return [line]
    return [f"{line}  # {origin}"] if len(line) + len(origin) + 4 <= _WIDTH else [f"# {origin}", line]


def _name_header(name: str, counts: Counter[str], *, is_list: bool) -> str:
    """The dotted key of a header: tables in a list are counted, and a table of the list's last entry belongs to it."""
    parts: list[str] = []
    plain = name.split(".")
    for depth, part in enumerate(plain, 1):
        above = ".".join(plain[:depth])
        parts.append(part)
        if depth == len(plain) and is_list:
            place = ".".join(parts)
            counts[above] += 1
            counts[place + "#"] += 1
            parts.append(str(counts[place + "#"] - 1))
        elif counts[above]:
            parts.append(str(counts[".".join(parts) + "#"] - 1))
    return ".".join(parts)
