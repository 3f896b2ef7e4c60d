"""Tables that say what belongs to each picture: JSON Lines, CSV, a JSON list, or JSON with a table under the name of each picture."""

from __future__ import annotations

import csv
import json
import re
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from io import StringIO
from pathlib import Path

from weber.data import parquet
from weber.data.backends.backend import Backend
from weber.errors import DataError

IMAGE_COLUMNS = ("image", "file_name", "url")
CAPTION_COLUMNS = ("caption", "text", "prompt", "instruction")
_DIGESTS = {"sha256": 64, "md5": 32}
"""Columns with what the bytes of a picture are known by, and how many digits that has."""

_SIZES = ("width", "height")
_EXPECTED_ROW = '{"image": "cat.png", "caption": "a cat"}'
_SHOWN_CHARACTERS = 80
_SPREADSHEET = b"PK\x03\x04"
_KINDS: dict[type, str] = {bool: "true or false", int: "a number", float: "a number", list: "a list", dict: "a table", str: "text"}


@dataclass(frozen=True, slots=True)
class TableRow:
    """One row; `where` says where it stands, such as `line 7`."""

    where: str
    cells: Mapping[str, object]


@dataclass(frozen=True)
class Table:
    """The rows of a file, at least one. `name` is what messages call it."""

    name: str
    rows: Sequence[TableRow]

    @cached_property
    def columns(self) -> tuple[str, ...]:
        """Every column that a row has, in the order of their first appearance."""
        return tuple(dict.fromkeys(name for row in self.rows for name in row.cells))

    def check_column(self, wanted: str | None, known: Sequence[str], *, key: str) -> str:
        """`wanted`, or else the first of the `known` columns that is there. DataError if there is none; `key` is where to set it."""
        columns = self.columns
        names = {name.lower(): name for name in reversed(columns)}
        found = [wanted] if wanted in columns else [names[name] for name in known if name in names] if wanted is None else []
        if found:
            return found[0]
        listed = f'"{wanted}"' if wanted is not None else f"named {', '.join(known[:-1])} or {known[-1]}"
        raise DataError(
            f"{self.name} has no column {listed}",
            got=f"the columns {', '.join(columns)}",
            fix=f"set {key} to one of them",
        )

    def read_texts(self, row: TableRow, column: str, *, several: bool = False) -> tuple[str, ...]:
        """The text in a cell, or with `several` those of a list, without empty ones. DataError if it holds anything else."""
        cell = row.cells.get(column)
        items = cell if several and isinstance(cell, list) else [] if cell is None else [cell]
        texts = []
        for item in items:
            if not isinstance(item, str):
                raise DataError(
                    f'{self.name}, {row.where}: the column "{column}" holds {_KINDS.get(type(item), "no text")}',
                    got=_cut(json.dumps(cell)),
                    expected="text, or a list of texts" if several else "the name of a file",
                    fix="mend this row, or name another column",
                )
            if item.strip():
                texts.append(item.strip())
        return tuple(texts)

    def read_digest(self, row: TableRow) -> str:
        """What the bytes of the picture are known by, as `#sha256=...`; empty where no column says it. DataError for what is none."""
        names = {name.lower(): name for name in reversed(self.columns)}
        for name, length in _DIGESTS.items():
            for text in self.read_texts(row, names[name]) if name in names else ():
                if not re.fullmatch(f"[0-9a-fA-F]{{{length}}}", text):
                    raise DataError(
                        f'{self.name}, {row.where}: the column "{names[name]}" holds no {name}',
                        got=_cut(text),
                        expected=f"{length} digits of 0-9 and a-f",
                        fix="mend this row, or rename the column",
                    )
                return f"#{name}={text.lower()}"
        return ""


    def read_size(self, row: TableRow) -> tuple[int, int] | None:
        """Width and height of the picture, None where no columns say them. DataError with a one-line reason for what is no size."""
        names = {name.lower(): name for name in reversed(self.columns)}
        if not {*_SIZES} <= names.keys():
            return None
        cells = [row.cells.get(names[name]) for name in _SIZES]
        texts = ["" if cell is None else f"{cell:g}" if isinstance(cell, float) else str(cell).strip() for cell in cells]
        if not all(texts):
            return None
        if not all(re.fullmatch("0*[1-9][0-9]{0,8}", text) for text in texts):
            raise DataError(f"size is no number of pixels: {' x '.join(texts)} in {row.where}")
        return int(texts[0]), int(texts[1])


def read_table(path: Path, files: Backend, *, name: str) -> Table:
    """The rows of a table. DataError names the line that is broken."""
    try:
        data = files.read(path)
    except DataError as error:
        raise DataError(f"{name} cannot be read", got=error.what, fix="name a file that is there and that you may read") from error
    if path.suffix.lower() == parquet.ENDING:
        rows = [TableRow(f"row {number}", cells) for number, cells in enumerate(parquet.read_rows(data, name=name), 1)]
        return _check_rows(rows, name)
    if data.startswith(_SPREADSHEET):
        raise DataError(f"{name} is a spreadsheet or an archive, not text", got=path.name, fix="save it as CSV, in UTF-8")
    try:
        text = data.decode("utf-8-sig")
    except UnicodeDecodeError as error:
        raise DataError(f"{name} is not UTF-8 text", got=str(error), fix="save it again with the encoding UTF-8") from error
    read = {".csv": _read_csv, ".json": _read_list}.get(path.suffix.lower(), _read_lines)
    return _check_rows(list(read(text, name)), name)


def _check_rows(rows: Sequence[TableRow], name: str) -> Table:
    if not rows:
        raise DataError(f"{name} has no rows", got="an empty table", expected="one row per picture", fix="name another file")
    return Table(name, rows)


def _read_lines(text: str, name: str) -> Iterator[TableRow]:
    if text.lstrip().startswith("["):
        yield from _read_list(text, name)
        return
    # not splitlines, which would also cut at characters that JSON allows inside texts, such as U+2028
    for number, line in enumerate(text.split("\n"), 1):
        if line.strip():
            yield _build_row(_parse(line, name, first=number), name, f"line {number}")


def _read_list(text: str, name: str) -> Iterator[TableRow]:
    items = _parse(text, name, first=1)
    if isinstance(items, dict) and items and all(isinstance(item, dict) for item in items.values()):
        yield from (TableRow(f"the entry {_cut(key)}", {IMAGE_COLUMNS[0]: key, **item}) for key, item in items.items())
        return
    if not isinstance(items, list):
        raise DataError(f"{name} holds no list", got=_cut(text), expected=f"[{_EXPECTED_ROW}, ...]", fix="write a list of rows")
    for number, item in enumerate(items, 1):
        yield _build_row(item, name, f"row {number}")


def _read_csv(text: str, name: str) -> Iterator[TableRow]:
    reader = csv.reader(StringIO(text, newline=""), delimiter=_find_delimiter(text), strict=True)
    header: list[str] = []
    start = 1
    try:
        for cells in reader:
            where, start = f"line {start}", reader.line_num + 1
            if not cells:
                continue
            if not header:
                header = _check_header([cell.strip() for cell in cells], name)
            elif len(cells) != len(header):
                raise DataError(
                    f"{name}, {where}: {len(cells)} cells, but {len(header)} columns",
                    got=_cut(",".join(cells)),
                    expected=f"the columns {', '.join(header)}",
                    fix="put cells that hold commas or line breaks in double quotes",
                )
            else:
                yield TableRow(where, dict(zip(header, cells, strict=True)))
    except csv.Error as error:
        raise DataError(f"{name}, line {start} is not CSV", got=str(error), fix="double the quotes inside of quoted cells") from error


def _find_delimiter(text: str) -> str:
    """What separates cells: commas; semicolons or tabs, as spreadsheets write them in many countries, where the header has no comma."""
    header = text.lstrip().partition("\n")[0]
    return next((one for one in (",", ";", "\t") if one in header), ",")


def _check_header(header: list[str], name: str) -> list[str]:
    twice = [column for column in header if header.count(column) > 1]
    if twice:
        raise DataError(f'{name} has the column "{twice[0]}" twice', got=f"the columns {', '.join(header)}", fix="rename one of them")
    return header


def _parse(text: str, name: str, *, first: int) -> object:
    """The JSON in some lines of a file, of which the first has that number."""
    try:
        return json.loads(text)
    except (ValueError, RecursionError) as error:
        reason, line = (error.msg, error.lineno) if isinstance(error, json.JSONDecodeError) else (str(error), 1)
        raise DataError(
            f"{name}, line {first + line - 1} is not JSON: {reason[:1].lower()}{reason[1:]}",
            got=_cut(text.split("\n")[line - 1]),
            expected=_EXPECTED_ROW,
            fix="mend this line",
        ) from error


def _build_row(item: object, name: str, where: str) -> TableRow:
    if not isinstance(item, dict):
        raise DataError(f"{name}, {where} is not a row", got=_cut(json.dumps(item)), expected=_EXPECTED_ROW, fix="mend this row")
    return TableRow(where, item)


def _cut(text: str) -> str:
    text = " ".join(text.split())
    return text if len(text) <= _SHOWN_CHARACTERS else text[:_SHOWN_CHARACTERS] + " ..."
